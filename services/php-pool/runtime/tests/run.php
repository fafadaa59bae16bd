<?php

declare(strict_types=1);

/*
 * The tests of the runtime: `php services/php-pool/runtime/tests/run.php [NAME…]`. Each file `*_test.php` returns cases by name;
 * a case gets nothing and throws when what it asserts does not hold.
 */

// What the tests expect of file modes.
umask(022);

require __DIR__ . '/pool.php';
require __DIR__ . '/process.php';

/** A test that hangs ends the run: SIGALRM kills it. */
const TIME_LIMIT_SECONDS = 20;

function same(mixed $expected, mixed $actual, string $what = ''): void
{
    if ($expected !== $actual) {
        throw new RuntimeException(trim("$what: expected " . json_encode($expected, JSON_PARTIAL_OUTPUT_ON_ERROR) . ', got ' . substr((string) json_encode($actual, JSON_PARTIAL_OUTPUT_ON_ERROR), 0, 2000), ': '));
    }
}

function contains(string $part, string|array $whole, string $what = ''): void
{
    if (is_array($whole) ? !in_array($part, $whole, true) : !str_contains($whole, $part)) {
        throw new RuntimeException(trim("$what: \"$part\" is not in " . substr((string) json_encode($whole, JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_UNESCAPED_SLASHES), 0, 2000), ': '));
    }
}

$passed = $failed = 0;
foreach (glob(__DIR__ . '/*_test.php') as $file) {
    foreach (require $file as $name => $case) {
        if ($argc > 1 && array_filter(array_slice($argv, 1), static fn (string $part): bool => str_contains(basename($file) . " $name", $part)) === []) {
            continue;
        }
        pcntl_alarm(TIME_LIMIT_SECONDS);
        try {
            $case();
            $passed++;
        } catch (Throwable $error) {
            $failed++;
            echo basename($file), " $name\n  {$error->getMessage()}\n  ", basename($error->getFile()), ":{$error->getLine()}\n";
            foreach ($error->getTrace() as $frame) {
                if (str_ends_with($frame['file'] ?? '', '_test.php')) {
                    echo '  ', basename($frame['file']), ":{$frame['line']}\n";
                    break;
                }
            }
        }
    }
}
echo "$passed passed, $failed failed\n";
exit($failed === 0 ? 0 : 1);
