"""`python -m detector` is `detector`."""

from detector.cli.main import command

if __name__ == "__main__":
    command()
