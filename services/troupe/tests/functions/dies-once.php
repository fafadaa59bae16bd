<?php
// Dies the first time that it is called, by the note in which it counts.
return function (): string {
    file_put_contents($_GET['note'], 'x', FILE_APPEND);
    clearstatcache();
    if (filesize($_GET['note']) === 1) {
        fwrite(STDERR, "last words\n");
        posix_kill(getmypid(), SIGKILL);
    }
    return 'alive';
};
