<?php

declare(strict_types=1);

/*
 * CPU per call of one PHP process, at depth 1 and 2: `php services/php-pool/runtime/tests/bench.php [CALLS]`.
 * User and system time of the process itself as the kernel counts them; the driver on the other core does not show.
 */

require __DIR__ . '/pool.php';
require __DIR__ . '/process.php';

$calls = (int) ($argv[1] ?? 100_000);
$pool = new Pool([
    'hello.php' => (string) file_get_contents(dirname(__DIR__, 4) . '/functions/hello.php'),
    'bye.php' => 'return function () { echo "bye"; exit; };',
    'session.php' => 'return function () { session_start(); return ["n" => $_SESSION["n"] = ($_SESSION["n"] ?? 0) + 1]; };',
]);

function ticks(int $pid): array
{
    $fields = explode(' ', substr(strrchr((string) file_get_contents("/proc/$pid/stat"), ')'), 2));
    return [(int) $fields[11], (int) $fields[12]];
}

foreach ([['hello', 1], ['hello', 2], ['bye', 1], ['session', 1]] as [$function, $depth]) {
    $process = $pool->process();
    $server = Process::server($function) + ['HTTP_ACCEPT_ENCODING' => 'gzip', 'HTTP_TRACEPARENT' => '00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01'];
    if ($function === 'session') {
        $server['HTTP_COOKIE'] = 'PHPSESSID=abcdefabcdefabcdefabcdef';
    }
    $meta = serialize($server);
    $index = $pool->index[$function];
    for ($i = 0; $i < 1000; $i++) {
        $process->write(1, 0, $meta, $index, strlen($meta));
        $process->frame();
    }
    [$user, $system] = ticks($process->pid);
    $start = hrtime(true);
    for ($i = 1; $i < $depth; $i++) {
        $process->write(1, 0, $meta, $index, strlen($meta));
    }
    for ($i = 0; $i < $calls; $i++) {
        $process->write(1, 0, $meta, $index, strlen($meta));
        $head = fread($process->out, 16);
        fread($process->out, unpack('V', $head)[1]);
    }
    $elapsed = hrtime(true) - $start;
    [$user2, $system2] = ticks($process->pid);
    printf("%-8s depth %d: %.2f µs CPU per call (%.2f user, %.2f system), %.0f calls/s\n", $function, $depth, 10000 * ($user2 - $user + $system2 - $system) / $calls,
        10000 * ($user2 - $user) / $calls, 10000 * ($system2 - $system) / $calls, $calls / ($elapsed / 1e9));
}
$pool->close();
