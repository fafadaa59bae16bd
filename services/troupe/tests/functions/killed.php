<?php
// Dies as a process that runs out of luck does: without a word, after a while if that is wanted.
return function () {
    usleep(1000 * (int) ($_GET['ms'] ?? 0));
    posix_kill(getmypid(), SIGKILL);
};
