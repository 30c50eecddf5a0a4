"""BibTeX entries, by key, for the publications that describe methods and libraries."""

from __future__ import annotations

from typing import NamedTuple


class Reference(NamedTuple):
    """One BibTeX entry."""

    kind: str
    author: str
    title: str
    year: int
    where: dict[str, str]

    def bibtex(self, key: str) -> str:
        """Return the text of the entry with a given key."""
        fields = {"author": self.author, "title": f"{{{self.title}}}", "year": str(self.year), **self.where}
        lines = ",\n".join(f"  {name:<12} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{key},\n{lines}\n}}"


def _article(author: str, title: str, year: int, journal: str, volume: str, pages: str) -> Reference:
    return Reference("article", author, title, year, {"journal": journal, "volume": volume, "pages": pages})


def _software(author: str, title: str, year: int, url: str) -> Reference:
    return Reference("misc", author, title, year, {"howpublished": f"\\url{{{url}}}"})


def _arxiv(author: str, title: str, year: int, number: str) -> Reference:
    return Reference("misc", author, title, year, {"eprint": number, "archivePrefix": "arXiv"})


def _conference(author: str, title: str, year: int) -> Reference:
    where = {"booktitle": "International Conference on Learning Representations"}
    return Reference("inproceedings", author, title, year, where)


REFERENCES = {
    "sheiner1980": _article(
        "Sheiner, Lewis B. and Beal, Stuart L.",
        "Evaluation of methods for estimating population pharmacokinetic parameters. I. Michaelis-Menten model: "
        "routine clinical pharmacokinetic data",
        1980,
        "Journal of Pharmacokinetics and Biopharmaceutics",
        "8",
        "553--571",
    ),
    "lindstrom1990": _article(
        "Lindstrom, Mary J. and Bates, Douglas M.",
        "Nonlinear mixed effects models for repeated measures data",
        1990,
        "Biometrics",
        "46",
        "673--687",
    ),
    "wang2007": _article(
        "Wang, Yaning",
        "Derivation of various NONMEM estimation methods",
        2007,
        "Journal of Pharmacokinetics and Pharmacodynamics",
        "34",
        "575--593",
    ),
    "pinheiro1995": _article(
        "Pinheiro, José C. and Bates, Douglas M.",
        "Approximations to the log-likelihood function in the nonlinear mixed-effects model",
        1995,
        "Journal of Computational and Graphical Statistics",
        "4",
        "12--35",
    ),
    "delyon1999": _article(
        "Delyon, Bernard and Lavielle, Marc and Moulines, Eric",
        "Convergence of a stochastic approximation version of the EM algorithm",
        1999,
        "The Annals of Statistics",
        "27",
        "94--128",
    ),
    "kuhn2005": _article(
        "Kuhn, Estelle and Lavielle, Marc",
        "Maximum likelihood estimation in nonlinear mixed effects models",
        2005,
        "Computational Statistics \\& Data Analysis",
        "49",
        "1020--1038",
    ),
    "louis1982": _article(
        "Louis, Thomas A.",
        "Finding the observed information matrix when using the EM algorithm",
        1982,
        "Journal of the Royal Statistical Society, Series B",
        "44",
        "226--233",
    ),
    "bauer2007": _article(
        "Bauer, Robert J. and Guzy, Serge and Ng, Chee",
        "A survey of population analysis methods and software for complex pharmacokinetic and pharmacodynamic models "
        "with examples",
        2007,
        "The AAPS Journal",
        "9",
        "E60--E83",
    ),
    "jank2005": _article(
        "Jank, Wolfgang",
        "Quasi-Monte Carlo sampling to improve the efficiency of Monte Carlo EM",
        2005,
        "Computational Statistics \\& Data Analysis",
        "48",
        "685--701",
    ),
    "kingma2014": _conference("Kingma, Diederik P. and Welling, Max", "Auto-encoding variational Bayes", 2014),
    "burda2016": _conference(
        "Burda, Yuri and Grosse, Roger and Salakhutdinov, Ruslan", "Importance weighted autoencoders", 2016
    ),
    "tucker2019": _conference(
        "Tucker, George and Lawson, Dieterich and Gu, Shixiang and Maddison, Chris J.",
        "Doubly reparameterized gradient estimators for Monte Carlo objectives",
        2019,
    ),
    "hoffman2014": _article(
        "Hoffman, Matthew D. and Gelman, Andrew",
        "The No-U-Turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo",
        2014,
        "Journal of Machine Learning Research",
        "15",
        "1593--1623",
    ),
    "tsitouras2011": _article(
        "Tsitouras, Ch.",
        "Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption",
        2011,
        "Computers \\& Mathematics with Applications",
        "62",
        "770--775",
    ),
    "prince1981": _article(
        "Prince, P. J. and Dormand, J. R.",
        "High order embedded Runge-Kutta formulae",
        1981,
        "Journal of Computational and Applied Mathematics",
        "7",
        "67--75",
    ),
    "kvaerno2004": _article(
        "Kværnø, Anne",
        "Singly diagonally implicit Runge-Kutta methods with an explicit first stage",
        2004,
        "BIT Numerical Mathematics",
        "44",
        "489--502",
    ),
    "diffrax": Reference(
        "phdthesis", "Kidger, Patrick", "On neural differential equations", 2021, {"school": "University of Oxford"}
    ),
    "jax": _software(
        "Bradbury, James and Frostig, Roy and Hawkins, Peter and others",
        "JAX: composable transformations of Python+NumPy programs",
        2018,
        "https://github.com/jax-ml/jax",
    ),
    "numpyro": _arxiv(
        "Phan, Du and Pradhan, Neeraj and Jankowiak, Martin",
        "Composable effects for flexible and accelerated probabilistic programming in NumPyro",
        2019,
        "1912.11554",
    ),
    "flax": _software(
        "Heek, Jonathan and Levskaya, Anselm and Oliver, Avital and others",
        "Flax: a neural network library and ecosystem for JAX",
        2020,
        "https://github.com/google/flax",
    ),
    "optimistix": _arxiv(
        "Rader, Jason and Lyons, Terry and Kidger, Patrick",
        "Optimistix: modular optimisation in JAX and Equinox",
        2024,
        "2402.09983",
    ),
    "arviz": _article(
        "Kumar, Ravin and Carroll, Colin and Hartikainen, Ari and Martin, Osvaldo",
        "ArviZ: a unified library for exploratory analysis of Bayesian models in Python",
        2019,
        "Journal of Open Source Software",
        "4",
        "1143",
    ),
}
