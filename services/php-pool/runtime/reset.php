<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * Puts back, after each call, what a call can change for the next one: everything PHP itself puts back between two requests
 * that plain PHP code can see. What can be told by a cheap question is compared; what cannot is noted when it is changed.
 *
 * Statics, constants, class state and loaded code stay: that is what `isolation = "shared"` is for.
 */
final class Reset
{
    /** @var array<string, string|false> ini settings changed during this call, with their values before */
    private static array $ini = [];

    /** The random generator was seeded on purpose. */
    public static bool $seeded = false;

    private static string $directory;
    private static int $umask;
    private static string $locale;
    private static string $timezone;
    private static int $reporting;
    private static ?bool $libxml;
    private static string $encoding;

    /** @var array<string, string> */
    private static array $environment;

    /** @var ?callable */
    private static $errorHandler;

    /** @var ?callable */
    private static $exceptionHandler;

    /** Takes the state after boot as the one every call begins with. */
    public static function remember(string $directory): void
    {
        chdir($directory);
        self::$directory = (string) getcwd();
        self::$umask = umask();
        self::$locale = (string) setlocale(LC_ALL, '0');
        self::$timezone = date_default_timezone_get();
        self::$reporting = error_reporting();
        self::$libxml = function_exists('libxml_use_internal_errors') ? libxml_use_internal_errors() : null;
        self::$encoding = function_exists('mb_internal_encoding') ? (string) mb_internal_encoding() : '';
        self::$environment = getenv();
        self::$errorHandler = set_error_handler(null);
        restore_error_handler();
        self::$exceptionHandler = set_exception_handler(null);
        restore_exception_handler();
        self::$ini = [];
        self::$seeded = false;
        error_clear_last();
    }

    /** ini_set(), with a note of what to put back. */
    public static function set(string $option, string|int|float|bool|null $value): string|false
    {
        if (str_starts_with($option, 'session.')) {
            Sessions::addHeaders();
        }
        // The other name of ini_set(), which the runtime has redeclared.
        $before = ini_alter($option, $value);
        if ($before !== false && !array_key_exists($option, self::$ini)) {
            self::$ini[$option] = $before;
        }
        return $before;
    }

    /** Whether this call has changed ini settings. */
    public static function isChanged(): bool
    {
        return self::$ini !== [];
    }

    public static function all(): void
    {
        if (self::$ini !== []) {
            foreach (self::$ini as $option => $value) {
                @ini_alter($option, $value);
            }
            self::$ini = [];
        }
        if (self::$seeded) {
            srand();
            self::$seeded = false;
        }
        // Unconditional: code that changes a setting cannot be told from its text, since a name may be put together.
        self::settings();
        if (Code::$surroundings) {
            self::surroundings();
        }
        // PHP remembers what it last asked of one file until the end of a request. No system call.
        clearstatcache();
        error_clear_last();
    }

    private static function settings(): void
    {
        if (set_error_handler(null) !== self::$errorHandler) {
            self::errorHandler();
        }
        restore_error_handler();
        if (set_exception_handler(null) !== self::$exceptionHandler) {
            self::exceptionHandler();
        }
        restore_exception_handler();
        if (error_reporting() !== self::$reporting) {
            error_reporting(self::$reporting);
        }
        if (date_default_timezone_get() !== self::$timezone) {
            date_default_timezone_set(self::$timezone);
        }
        if (setlocale(LC_ALL, '0') !== self::$locale) {
            // C takes the name of a mixed locale ("LC_CTYPE=C;LC_NUMERIC=de_DE;…") as it gives it.
            setlocale(LC_ALL, self::$locale);
        }
        if (!gc_enabled()) {
            gc_enable();
        }
        if (self::$encoding !== '' && mb_internal_encoding() !== self::$encoding) {
            mb_internal_encoding(self::$encoding);
        }
        if (self::$libxml !== null && (libxml_use_internal_errors() !== self::$libxml || self::$libxml)) {
            libxml_clear_errors();
            libxml_use_internal_errors(self::$libxml);
        }
    }

    private static function surroundings(): void
    {
        if (getcwd() !== self::$directory) {
            chdir(self::$directory);
        }
        if (umask() !== self::$umask) {
            umask(self::$umask);
        }
        if (getenv() !== self::$environment) {
            self::environment();
        }
    }

    /** A function may have pushed any number of handlers; the one of boot time lies below them. */
    private static function errorHandler(): void
    {
        do {
            restore_error_handler();
            restore_error_handler();
            $current = set_error_handler(null);
        } while ($current !== null && $current !== self::$errorHandler);
        if ($current !== self::$errorHandler) {
            restore_error_handler();
            set_error_handler(self::$errorHandler);
            set_error_handler(null);
        }
    }

    private static function exceptionHandler(): void
    {
        do {
            restore_exception_handler();
            restore_exception_handler();
            $current = set_exception_handler(null);
        } while ($current !== null && $current !== self::$exceptionHandler);
        if ($current !== self::$exceptionHandler) {
            restore_exception_handler();
            set_exception_handler(self::$exceptionHandler);
            set_exception_handler(null);
        }
    }

    private static function environment(): void
    {
        $current = getenv();
        foreach (array_diff_key($current, self::$environment) as $name => $_) {
            putenv((string) $name);
        }
        foreach (self::$environment as $name => $value) {
            if (($current[$name] ?? null) !== $value) {
                putenv("$name=$value");
            }
        }
    }
}
