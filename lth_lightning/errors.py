"""The one exception for what a user can mend."""


class UserError(Exception):
    """A user's mistake: one line that says what is wrong and what to do. The command line exits with 2."""
