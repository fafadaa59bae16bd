<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** What a failed call tells: the log gets everything, php-pool the essentials; it decides what the client may see. */
final class Failure
{
    /** Room for the shutdown functions and the report after the memory limit was hit. */
    private const RESERVE = 8 << 20;

    /** Longer traces are cut: a frame holds at most 1 MiB, and nobody reads the thousandth level of a recursion. */
    private const TRACE = 16384;

    /** So are longer messages, which may quote what a client sent: six bytes stand for a control character in JSON. */
    private const MESSAGE = 65536;

    /** Logs an uncaught exception in PHP's own form. */
    public static function log(\Throwable $error): void
    {
        error_log("PHP Fatal error:  Uncaught $error\n  thrown in {$error->getFile()} on line {$error->getLine()}");
    }

    public static function describe(\Throwable $error): string
    {
        return self::encode($error instanceof FatalError ? 'FatalError' : $error::class, $error->getMessage(), $error->getFile(), $error->getLine(), $error->getTraceAsString());
    }

    /** @param array{type: int, message: string, file: string, line: int} $error as error_get_last() has it; PHP has logged it */
    public static function describeFatal(array $error): string
    {
        return self::encode('FatalError', $error['message'], $error['file'], $error['line'], '');
    }

    public static function makeRoom(): void
    {
        $limit = ini_parse_quantity_bytes((string) ini_get('memory_limit'));
        if ($limit > 0) {
            @ini_alter('memory_limit', (string) (max($limit, memory_get_usage(true)) + self::RESERVE));
        }
    }

    private static function encode(string $class, string $message, string $file, int $line, string $trace): string
    {
        $message = substr($message, 0, self::MESSAGE);
        $json = (string) json_encode(
            ['class' => $class, 'message' => $message, 'file' => $file, 'line' => $line, 'trace' => substr($trace, 0, self::TRACE)],
            JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR,
        );
        if ($json !== '') {
            return $json;
        }
        // After a fatal error inside a Fiber, json_encode() gives nothing, and no error either; a message has no control characters.
        [$class, $message, $file] = str_replace(['\\', '"', "\n"], ['\\\\', '\\"', ' '], [$class, $message, $file]);
        return "{\"class\":\"$class\",\"message\":\"$message\",\"file\":\"$file\",\"line\":$line,\"trace\":\"\"}";
    }
}

/** The bytes that a setting like "128M" means (ini_parse_quantity() is of PHP 8.3); -1 for no limit. */
function ini_parse_quantity_bytes(string $setting): int
{
    return (int) $setting << match (strtolower(substr($setting, -1))) {
        'k' => 10,
        'm' => 20,
        'g' => 30,
        default => 0,
    };
}
