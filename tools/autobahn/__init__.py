"""The frames of `/ws` as an echo server, and Autobahn's testsuite against it."""
