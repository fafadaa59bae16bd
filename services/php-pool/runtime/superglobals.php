<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/** Fills the superglobals for one call, as php-fpm has them. */
final class Superglobals
{
    /** @var array<string|int, mixed> $_COOKIE as it came, whatever the function did to it */
    public static array $cookies = [];

    /** @var array<string, string> $_SERVER as it came */
    private static array $server = [];

    /** @var array<string|int, mixed> $_POST as it came */
    private static array $post = [];

    /** @var array<string, mixed> */
    private static array $environment = [];

    /** @var array<string, true> the global variables that exist once all code is loaded */
    private static array $globals = [];

    /** Lists of names that are kept: each kind of client sends its own headers. */
    private const NAME_LISTS = 64;

    /** @var array<string, list<string>> the names in a list of names */
    private static array $names = [];

    public static function remember(): void
    {
        self::$environment = $_ENV;
        self::$globals = array_map(static fn (): bool => true, $GLOBALS);
    }

    /**
     * @param array<string, string> $variables what differs from request to request, as php-pool sent it
     * @param array<string, string> $constants what is the same for each call of this function
     */
    public static function fill(array $variables, array $constants): void
    {
        $now = microtime(true);
        $variables += $constants;
        $variables['PHP_SELF'] = $variables['DOCUMENT_URI'] = $variables['SCRIPT_NAME'] . $variables['PATH_INFO'];
        $variables['REQUEST_TIME_FLOAT'] = $now;
        $variables['REQUEST_TIME'] = (int) $now;
        if (isset($variables['HTTP_AUTHORIZATION'])) {
            $variables += self::authorization($variables['HTTP_AUTHORIZATION']);
        }
        $_SERVER = self::$server = $variables;
        $_GET = $_POST = $_FILES = $_REQUEST = $_COOKIE = self::$cookies = [];
        if (isset($variables['HTTP_COOKIE'])) {
            $_COOKIE = self::$cookies = Cookies::parse($variables['HTTP_COOKIE']);
        }
        if ($variables['QUERY_STRING'] !== '') {
            parse_str($variables['QUERY_STRING'], $_GET);
            $_REQUEST = $_GET;
        }
    }

    /**
     * The body, of a call that has one: $_POST, $_FILES, and what php://input will read.
     *
     * @param ?string $fields of a multipart body, urlencoded
     * @param ?list<array{string, string, string, string, int, int}> $files
     */
    public static function body(string $body, ?string $spool = null, ?string $fields = null, ?array $files = null): void
    {
        Input::$body = $body;
        Input::$spool = $spool;
        if ($files !== null) {
            // First of all: whatever the form does to an error handler, they are removed with the call.
            Uploads::take($files);
        }
        if ($fields === null && !Input::$streamed && $_SERVER['REQUEST_METHOD'] === 'POST'
            && strncasecmp($_SERVER['CONTENT_TYPE'] ?? '', 'application/x-www-form-urlencoded', 33) === 0) {
            $fields = $spool === null ? $body : (string) file_get_contents($spool);
        }
        if ($fields !== null && $fields !== '') {
            parse_str($fields, $_POST);
            self::$post = $_POST;
            $_REQUEST = array_replace_recursive($_GET, $_POST);
        }
        if ($files !== null) {
            $_FILES = Uploads::accept($files, $_POST);
        }
        // As under php-fpm, php://input has no multipart body.
        if ($files === null && ($body !== '' || $spool !== null || Input::$streamed)) {
            Input::install();
        }
    }

    /**
     * What the client sent, for filter_input(), whatever the function did to the superglobals. The query is taken apart again: few
     * ask for it.
     *
     * @return ?array<string|int, mixed> null for what is no INPUT_* constant
     */
    public static function input(int $type): ?array
    {
        if ($type === INPUT_GET) {
            // That it has too many variables was said when it was taken apart first.
            Quiet::call(static function () use (&$query): void {
                parse_str(self::$server['QUERY_STRING'] ?? '', $query);
            });
        }
        return match ($type) {
            INPUT_GET => $query,
            INPUT_POST => self::$post,
            INPUT_COOKIE => self::$cookies,
            INPUT_SERVER => self::$server,
            INPUT_ENV => self::$environment,
            default => null,
        };
    }

    /**
     * The variables in plain form: values, each with a NUL behind it, then their names, one per line.
     *
     * @return array<string, string>
     */
    public static function plain(string $meta): array
    {
        $values = explode("\0", $meta);
        $names = array_pop($values);
        if (!isset(self::$names[$names])) {
            if (count(self::$names) >= self::NAME_LISTS) {
                self::$names = [];
            }
            self::$names[$names] = explode("\n", $names);
        }
        return array_combine(self::$names[$names], $values);
    }

    /** Removes the global variables a call has made, and what it put into the superglobals, references between them included. */
    public static function reset(): void
    {
        // Destructors first, which may make others.
        unset($_SESSION, $_SERVER, $_GET, $_POST, $_FILES, $_REQUEST, $_COOKIE, $_ENV);
        if (Code::$globals) {
            $_SERVER = $_GET = $_POST = $_FILES = $_REQUEST = $_COOKIE = $_ENV = [];
            if (count($GLOBALS) !== count(self::$globals)) {
                foreach (array_diff_key($GLOBALS, self::$globals) as $name => $_) {
                    unset($GLOBALS[$name]);
                }
            }
        }
        $_ENV = self::$environment;
        if (self::$post !== []) {
            self::$post = [];
        }
    }

    /** @return array<string, string> */
    private static function authorization(string $header): array
    {
        if (strncasecmp($header, 'Digest ', 7) === 0) {
            return ['PHP_AUTH_DIGEST' => substr($header, 7)];
        }
        if (strncasecmp($header, 'Basic ', 6) !== 0) {
            return [];
        }
        $parts = explode(':', (string) base64_decode(substr($header, 6)), 2);
        return isset($parts[1]) ? ['PHP_AUTH_USER' => $parts[0], 'PHP_AUTH_PW' => $parts[1]] : [];
    }
}
