# Passwords come from files, as Swarm mounts secrets; everything else from the environment, as always.
import os

for name in ("NAUTOBOT_DB_PASSWORD", "NAUTOBOT_REDIS_PASSWORD", "NAUTOBOT_SECRET_KEY"):
    path = os.environ.get(name + "_FILE")
    if path:
        with open(path, encoding="utf-8") as file:
            os.environ[name] = file.read().strip()

from nautobot.core.settings import *  # noqa: E402,F401,F403

SECRET_KEY = os.environ["NAUTOBOT_SECRET_KEY"]
