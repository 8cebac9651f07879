"""``python -m server``."""

from server.app import main

if __name__ == "__main__":
    main()
