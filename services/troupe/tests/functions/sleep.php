<?php
return function (): array {
    usleep(1000 * (int) ($_GET['ms'] ?? 100));
    return ['pid' => getmypid()];
};
