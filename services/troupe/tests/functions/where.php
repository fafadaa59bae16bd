<?php
// Which worker ran it (its zygote is the parent of its processes), and from when to when by the machine's clock.
return function (): array {
    $begin = hrtime(true);
    usleep(1000 * (int) ($_GET['ms'] ?? 20));
    return ['worker' => posix_getppid(), 'begin' => $begin, 'end' => hrtime(true)];
};
