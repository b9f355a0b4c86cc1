"""The PostgreSQL of a soak: a primary, and a standby that may take its place."""

from cluster import Cluster


class Pair:
    """With `has_standby`, no commit is answered before the standby shows it, so that nothing is
    lost when it is promoted. `environment` is for all its processes."""

    def __init__(self, has_standby, environment):
        self.primary, self.standby = Cluster(), None
        self.has_standby = has_standby
        self.primary.environment |= environment

    def start(self):
        self.primary.initialize()
        self.primary.start()
        if self.has_standby:
            self.standby = self.primary.standby(synchronous=True)

    def url(self):
        """The URL of the primary, whichever it is, now and later."""
        if not self.standby:
            return self.primary.url()
        places = f"{self.primary.place},{self.standby.place}"
        return f"postgresql://postgres@{places}/parley?target_session_attrs=read-write"

    def kill(self):
        """kill -9 of the primary."""
        self.primary.kill()

    def promote(self):
        """The standby takes the place of the primary that was killed."""
        killed, self.primary = self.primary, self.standby
        self.primary.promote()
        killed.standbys.remove(self.primary)
        killed.close()
        self.standby, self.port = None, killed.port

    def renew(self):
        """Make a new standby, in place of the one that was killed."""
        self.standby = self.primary.standby(synchronous=True, port=self.port)

    def close(self):
        self.primary.close()
