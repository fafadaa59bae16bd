<?php
// Dies in the middle of its request, and says when by the clock that all processes of a machine share.
return function (): never {
    file_put_contents($_GET['note'], (string) hrtime(true));
    posix_kill(getmypid(), (int) $_GET['signal']);
    exit;
};
