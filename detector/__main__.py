"""`python -m detector` is `detector`."""

from detector.cli import command

if __name__ == "__main__":
    command()
