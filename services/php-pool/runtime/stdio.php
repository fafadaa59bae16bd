<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * The standard descriptors, and how a forked process gets its own 1 and 2.
 *
 * The zygote holds the first streams PHP opens on them: those are the descriptors themselves, every later `php://stdout` is a
 * duplicate. Closing the first one closes the descriptor, and the next open takes its number: the dup2() of plain PHP.
 */
final class Stdio
{
    /** @var resource descriptor 1 */
    public static $output;

    /** @var resource descriptor 2: where PHP's own log goes, too */
    public static $error;

    /** @var resource descriptor 0: whoever closed it would have the next one opened take its number, and 1 and 2 be others */
    private static $input;

    public static function hold(): void
    {
        self::$input = fopen('php://stdin', 'r');
        self::$output = fopen('php://stdout', 'w');
        self::$error = fopen('php://stderr', 'w');
    }

    /** @return resource */
    private static function open(string $fifo)
    {
        // Without "n", an open would wait forever for a php-pool that died in the meantime.
        $stream = @fopen($fifo, 'wn') ?: exit(1);
        stream_set_blocking($stream, true);
        return $stream;
    }

    /** Puts two FIFOs in the place of descriptors 1 and 2. They are not close-on-exec: programs that functions start inherit them. */
    public static function reopen(string $output, string $error): void
    {
        fclose(self::$output);
        self::$output = self::open($output);
        fclose(self::$error);
        self::$error = self::open($error);
        // With the stream, C's stderr was closed, which PHP logs to by default: from now on it finds the descriptor by name
        // (and begins each entry with the time).
        if ((string) ini_get('error_log') === '') {
            ini_alter('error_log', '/proc/self/fd/2');
        }
    }

    /** Tells whoever reads the log which call the lines behind belong to. A stream that a function has closed gets no mark. */
    public static function mark(int $flags, string $number): void
    {
        $mark = "\x1e" . bin2hex($number) . "\n";
        if (($flags & Call::MARK_STDOUT) !== 0 && is_resource(self::$output)) {
            @fwrite(self::$output, $mark);
        }
        if (($flags & Call::MARK_STDERR) !== 0 && is_resource(self::$error)) {
            @fwrite(self::$error, $mark);
        }
    }

    /** What a function writes to these goes to the log, never into the reply. */
    public static function defineConstants(): void
    {
        define('STDIN', fopen('/dev/null', 'r'));
        define('STDOUT', self::$output);
        define('STDERR', self::$error);
    }
}
