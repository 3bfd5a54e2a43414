"""The one exception a user can cause."""


class UserError(Exception):
    """Bad input, said in one sentence that tells what to do; the command line prints it and exits with status 2."""
