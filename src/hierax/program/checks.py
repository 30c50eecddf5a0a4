def check_program(program, pop):
    pass
