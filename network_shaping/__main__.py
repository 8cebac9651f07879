"""``python -m network_shaping``."""

from network_shaping.app import main

if __name__ == "__main__":
    main()
