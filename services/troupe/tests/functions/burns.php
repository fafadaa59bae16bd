<?php
// Takes ?ms= of processor time, and holds ?mb= of memory for the next call of this process.
return function (): array {
    static $held = '';
    $held = str_repeat('x', (int) ($_GET['mb'] ?? 0) << 20);
    $used = static fn (): int => array_sum(array_map(
        static fn (string $part): int => getrusage()["ru_$part.tv_sec"] * 1_000_000 + getrusage()["ru_$part.tv_usec"],
        ['utime', 'stime'],
    ));
    $end = $used() + 1000 * (int) ($_GET['ms'] ?? 0);
    while ($used() < $end) {
        md5('x');
    }
    return ['pid' => getmypid(), 'held' => strlen($held)];
};
