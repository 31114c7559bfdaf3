"""The lab's guest: assembly, the constants it shares with the tests, and what events it causes."""
