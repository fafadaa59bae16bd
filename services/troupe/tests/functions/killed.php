<?php
// Dies as a process that runs out of luck does: without a word.
return fn () => posix_kill(getmypid(), SIGKILL);
