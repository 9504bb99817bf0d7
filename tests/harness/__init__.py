"""Starts and ends the services that Waypost's demo and tests run on, each of them private to its starter."""
