"""How the project is: its status, its problems, the checks of the machine."""
