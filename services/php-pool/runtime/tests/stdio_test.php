<?php

declare(strict_types=1);

/* A process's own standard output and error: FIFOs that php-pool reads. */

/** How a program ends that puts the FIFOs of a new folder in their place; $reads: php-pool is there. 124: it hangs. */
function reopened(bool $reads): int
{
    $fifos = [];
    $folder = sys_get_temp_dir() . '/troupe-stdio-' . getmypid();
    mkdir($folder);
    foreach (['out', 'err'] as $name) {
        posix_mkfifo($fifos[] = "$folder/$name", 0600);
    }
    // Both ends, as php-pool holds them.
    $held = $reads ? array_map(static fn (string $fifo) => fopen($fifo, 'r+'), $fifos) : [];
    $code = 'require $argv[1]; Troupe\Runtime\Stdio::hold(); Troupe\Runtime\Stdio::reopen($argv[2], $argv[3]); exit(7);';
    $child = proc_open(['timeout', '10', PHP_BINARY, '-r', $code, '--', dirname(__DIR__) . '/stdio.php', ...$fifos], [], $pipes);
    $status = proc_close($child);
    array_map(fclose(...), $held);
    array_map(unlink(...), $fifos);
    rmdir($folder);
    return $status;
}

return [
    'with php-pool there it goes on' => static function (): void {
        same(7, reopened(true));
    },
    // It was left behind, waiting for somebody who would read.
    'without php-pool it ends' => static function (): void {
        same(1, reopened(false));
    },
];
