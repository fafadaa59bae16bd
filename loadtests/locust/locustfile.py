"""Users of a Troupe that serves functions/.

    locust -f loadtests/locust/locustfile.py --host http://127.0.0.1:8080 --headless -u 50 -r 10 -t 60s --stop-timeout 10s
    locust -f loadtests/locust/locustfile.py,loadtests/locust/shapes/spike.py --host ... --headless --html report.html

Exit codes: 0 within slo.toml (or the file that SLO names), 3 beyond it, 1 nothing could be measured.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import slo  # noqa: E402,F401  registers itself
from users.api import ApiClient  # noqa: E402,F401
from users.browser import Visitor  # noqa: E402,F401
from users.uploader import Uploader  # noqa: E402,F401
