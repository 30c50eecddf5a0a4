"""Estimators, and the compiled objectives behind them."""
