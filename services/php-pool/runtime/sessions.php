<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * PHP's own sessions, made to end with the request.
 *
 * session_start() finds its cookie in $_COOKIE, but sends its headers past the redeclared header(), and has no other name by
 * which a function in its place could call it. So its headers are added when something else asks for the head or changes it:
 * before that, nobody can tell the difference. And PHP keeps the session's id until the process ends, so that the next request would get the same session: only destroying a
 * session frees the id, so after each request that used one, another one, of a handler that stores nothing, is destroyed.
 */
final class Sessions
{
    private static bool $available = false;

    private static string $module = 'files';

    /** A session was active when it was last looked for one. */
    private static bool $active = false;

    /** The id in the cookie that was last added; '' before the first session of a call. */
    private static string $told = '';

    /** A session of this call was seen, active or already closed. */
    private static bool $seen = false;

    private static ?\SessionHandlerInterface $void = null;

    /** @var array<string, string|null> the settings of sessions as boot code has left them */
    private static array $settings = [];

    public static function remember(): void
    {
        self::$available = function_exists('session_id');
        if (self::$available) {
            self::$module = (string) session_module_name();
            self::$settings = ini_get_all('session', false) ?: [];
        }
    }

    /** The name of the handler that is set. */
    public static function handler(): string
    {
        return function_exists('session_module_name') ? (string) session_module_name() : '';
    }

    /** Whether loaded code has set a handler, which cannot be asked for, nor put back after a call. The one `before` is put back. */
    public static function takeHandler(string $before): bool
    {
        if ($before === 'user' || self::handler() !== 'user') {
            return false;
        }
        session_module_name($before);
        return true;
    }

    /** Writes the session, before the client can come back for it. */
    public static function close(): void
    {
        if (self::$available && session_id() !== '' && session_status() === PHP_SESSION_ACTIVE) {
            self::commit();
        }
    }

    /** session_write_close(), by its other name. */
    public static function commit(): bool
    {
        self::addHeaders();
        self::$active = false;
        return session_commit();
    }

    /**
     * Adds what PHP has sent since the last time: the cookie of a session that began or got another id, and the headers that keep
     * caches away, in the place of those the function has set before. Goes before whatever changes the head, so that what comes
     * later wins; and before a session ends, of which nothing tells any more.
     */
    public static function addHeaders(): void
    {
        if (!self::$available || (session_id() === '' && !isset($_SESSION)) || Output::$streaming) {
            return;
        }
        $active = session_status() === PHP_SESSION_ACTIVE;
        // One that has ended meanwhile, by session_commit() or session_destroy(), has left its variables.
        $started = $active ? !self::$active : !self::$seen && isset($_SESSION);
        self::$active = $active;
        if ($started) {
            foreach (self::limiter() as $line) {
                Headers::put(strtolower(strstr($line, ':', true)), "$line\n", true);
            }
        }
        if ($started || $active) {
            self::addCookie($started && self::$seen);
            self::$seen = true;
        }
    }

    /** @param bool $again this is not the first session of the call: PHP sends the cookie even if the client has it */
    private static function addCookie(bool $again): void
    {
        $name = session_name();
        $id = session_id();
        $known = self::$told !== '' ? self::$told : Superglobals::$cookies[$name] ?? '';
        if ($id === '' || ($id === $known && !$again) || !ini_get('session.use_cookies')) {
            return;
        }
        self::$told = $id;
        Headers::removeCookie($name);
        $options = session_get_cookie_params();
        $options['expires'] = $options['lifetime'] > 0 ? time() + $options['lifetime'] : 0;
        Headers::put('set-cookie', 'Set-Cookie: ' . Cookies::line($name, $id, $options) . "\n", false);
    }

    public static function reset(): void
    {
        // One that was destroyed has no id any more; its handler and the settings that session_start() was given are left.
        if (!self::$available || (session_id() === '' && !isset($_SESSION) && session_module_name() === self::$module && !self::$seen)) {
            return;
        }
        self::$active = self::$seen = false;
        self::$told = '';
        if (session_status() === PHP_SESSION_ACTIVE) {
            session_commit();
        }
        session_set_save_handler(self::$void ??= new VoidSessions(), false);
        session_id('x');
        session_start();
        session_destroy();
        unset($_SESSION);
        if (self::$module !== 'user') {
            session_module_name(self::$module);
        }
        foreach (self::$settings as $option => $value) {
            if (ini_get($option) !== (string) $value) {
                @ini_alter($option, (string) $value);
            }
        }
    }

    /** @return list<string> the headers of session.cache_limiter, as PHP sends them */
    private static function limiter(): array
    {
        $seconds = 60 * (int) ini_get('session.cache_expire');
        $past = 'Expires: Thu, 19 Nov 1981 08:52:00 GMT';
        return match (ini_get('session.cache_limiter')) {
            'nocache' => [$past, 'Cache-Control: no-store, no-cache, must-revalidate', 'Pragma: no-cache'],
            'private' => [$past, "Cache-Control: private, max-age=$seconds"],
            'private_no_expire' => ["Cache-Control: private, max-age=$seconds"],
            'public' => ['Expires: ' . gmdate('D, d M Y H:i:s', time() + $seconds) . ' GMT', "Cache-Control: public, max-age=$seconds"],
            default => [],
        };
    }
}

/** Stores nothing: for the session that is only made to be destroyed. */
final class VoidSessions implements \SessionHandlerInterface
{
    public function open(string $path, string $name): bool
    {
        return true;
    }

    public function close(): bool
    {
        return true;
    }

    public function read(string $id): string|false
    {
        return '';
    }

    public function write(string $id, string $data): bool
    {
        return true;
    }

    public function destroy(string $id): bool
    {
        return true;
    }

    public function gc(int $max_lifetime): int|false
    {
        return 0;
    }
}
