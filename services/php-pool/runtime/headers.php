<?php

declare(strict_types=1);

namespace Troupe\Runtime;

use Troupe\Cache;

/** The response head as header() and its family build it: PHP's rules, PHP's warnings. */
final class Headers
{
    /** What a head may take, so that a frame holds it and the longest body that is sent with it. */
    private const LONGEST = Channel::LONGEST - Output::WHOLE;

    public static int $status = 200;

    /**
     * Lines by lower-case name, in the order they will be sent. The second and later ones of a name have the key
     * "name\n<counter>", which no name can collide with.
     *
     * @var array<string|int, string> "Name: value\n"
     */
    public static array $lines = [];

    /** @var ?callable called once, just before the head is sent */
    public static $callback = null;

    /** What the function's attribute says about caching its answers. */
    public static ?Cache $cache = null;

    private static int $repeated = 0;

    /** The line for replies that do not say what they are, as long as no call changes ini settings. */
    private static ?string $type = null;

    public static function add(string $line, bool $replace, int $status): void
    {
        Sessions::addHeaders();
        $line = rtrim($line, " \n\r\t\v\f");
        if (!self::writable() || $line === '') {
            return;
        }
        if (strpbrk($line, "\r\n\0") !== false) {
            trigger_error(
                str_contains($line, "\0") ? 'Header may not contain NUL bytes' : 'Header may not contain more than a single header, new line detected',
                E_USER_WARNING,
            );
            return;
        }
        if (strncasecmp($line, 'HTTP/', 5) === 0) {
            self::$status = $status ?: ((int) (explode(' ', $line, 3)[1] ?? 200) ?: 200);
            return;
        }
        $colon = strpos($line, ':');
        if ($colon === false || $colon === 0) {
            return;
        }
        $name = rtrim(substr($line, 0, $colon));
        $value = ltrim(substr($line, $colon + 1));
        $key = strtolower($name);
        switch ($key) {
            case 'content-type':
                $value = self::withCharset($value);
                break;
            case 'location':
                if ((self::$status < 300 || self::$status > 399) && self::$status !== 201) {
                    self::$status = 302;
                }
                break;
            case 'www-authenticate':
                self::$status = 401;
                break;
        }
        if ($status !== 0) {
            self::$status = $status;
        }
        self::put($key, "$name: $value\n", $replace);
    }

    /** Adds a finished line ("Name: value\n"), which the caller has checked. */
    public static function put(string $key, string $line, bool $replace): void
    {
        if ($replace) {
            self::remove($key);
        } elseif (isset(self::$lines[$key])) {
            $key .= "\n" . ++self::$repeated;
        }
        self::$lines[$key] = $line;
    }

    public static function remove(string $key): void
    {
        unset(self::$lines[$key]);
        if (self::$repeated > 0) {
            self::$lines = array_filter(
                self::$lines,
                static fn (string|int $other): bool => !str_starts_with((string) $other, "$key\n"),
                ARRAY_FILTER_USE_KEY,
            );
        }
    }

    /** All cookies of this name. */
    public static function removeCookie(string $name): void
    {
        foreach (self::$lines as $key => $line) {
            if (strncasecmp($line, "Set-Cookie: $name=", strlen("Set-Cookie: $name=")) === 0) {
                unset(self::$lines[$key]);
            }
        }
    }

    /** True while the head can still change; warns as PHP does when it cannot. */
    public static function writable(): bool
    {
        if (!Output::$streaming) {
            return true;
        }
        trigger_error('Cannot modify header information - headers already sent; called' . self::caller(), E_USER_WARNING);
        return false;
    }

    /** Where the code has called the runtime: what PHP would say is the runtime's own place. */
    private static function caller(): string
    {
        foreach (debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS) as $frame) {
            if (isset($frame['file']) && !str_starts_with($frame['file'], __DIR__ . '/')) {
                return " in {$frame['file']} on line {$frame['line']}";
            }
        }
        return ' by PHP';
    }

    /** The head to send: calls the callback, adds what a session needs and the default content type. */
    public static function finish(): string
    {
        if (self::$callback !== null) {
            $callback = self::$callback;
            self::$callback = null;
            $callback();
        }
        Sessions::addHeaders();
        if (self::$cache !== null) {
            self::addCache(self::$cache);
        }
        if (isset(self::$lines['status'])) {
            self::takeStatus();
        }
        if (!isset(self::$lines['content-type']) && self::$status !== 204 && self::$status !== 304) {
            $head = (Reset::isChanged() ? self::type() : self::$type ??= self::type()) . implode('', self::$lines);
        } else {
            $head = implode('', self::$lines);
        }
        return strlen($head) > self::LONGEST ? self::shorten($head) : $head;
    }

    /** The lines that there is room for. php-pool, which sends far fewer on, says of those it drops which they are. */
    private static function shorten(string $head): string
    {
        $kept = '';
        $dropped = 0;
        foreach (explode("\n", substr($head, 0, -1)) as $line) {
            if (strlen($kept) + strlen($line) < self::LONGEST) {
                $kept .= "$line\n";
            } else {
                $dropped++;
            }
        }
        error_log("dropped $dropped headers of the reply: all of them take " . strlen($head) . ' bytes, and ' . self::LONGEST . ' are sent at most');
        return $kept;
    }

    /** Not to an error, and not where the function or its session says otherwise; what it says of this answer comes first. */
    private static function addCache(Cache $cache): void
    {
        if (self::$status > 399 || isset(self::$lines['cache-control']) || isset(self::$lines['troupe-cache-control'])) {
            return;
        }
        self::put('troupe-cache-control', $cache->lines, true);
        if ($cache->varies !== '') {
            self::put('vary', $cache->varies, false);
        }
    }

    public static function reset(): void
    {
        self::$status = 200;
        self::$lines = [];
        self::$callback = null;
        self::$cache = null;
        self::$repeated = 0;
    }

    /** RFC 3875 section 6.3.3: a CGI script says its status by a field, which is not sent on. */
    private static function takeStatus(): void
    {
        $status = (int) substr(self::$lines['status'], strlen('Status: '));
        if ($status >= 100 && $status <= 599) {
            self::$status = $status;
        }
        self::remove('status');
    }

    /** As php.ini says. */
    private static function type(): string
    {
        $type = (string) ini_get('default_mimetype');
        $charset = strncasecmp($type, 'text/', 5) === 0 ? (string) ini_get('default_charset') : '';
        return $type === '' ? '' : "Content-Type: $type" . ($charset === '' ? '' : "; charset=$charset") . "\n";
    }

    private static function withCharset(string $type): string
    {
        $charset = strncasecmp($type, 'text/', 5) === 0 && stripos($type, 'charset=') === false ? (string) ini_get('default_charset') : '';
        return $charset === '' ? $type : "$type;charset=$charset";
    }
}
