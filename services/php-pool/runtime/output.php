<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * Where output goes: from the outermost output buffer into `$pending`, and from there into the reply, whole or in pieces.
 *
 * The outermost buffer cannot be removed and keeps nothing itself (a chunk size of one byte), so that flush() reaches all that
 * was printed however many buffers a function has opened above it.
 */
final class Output
{
    /** A reply up to this length is one frame; what is longer leaves in pieces, so that memory stays bounded. */
    public const WHOLE = 262144;

    /** Printed, or returned, and not yet sent. */
    public static string $pending = '';

    /** The head is sent: the reply is a stream now. */
    public static bool $streaming = false;

    /** The reply is complete although the function still runs (fastcgi_finish_request, or the client asked for the head only). */
    public static bool $finished = false;

    /** The reader of the reply went away. */
    public static bool $gone = false;

    /** A buffer that its code does not let anybody end would take what later calls print: the process is not for them. */
    public static bool $stuck = false;

    /** PHP has given up an outermost buffer, and considers the headers sent, as sessions notice: the process is not for later calls. */
    public static bool $deaf = false;

    /** How many buffers are the runtime's own: a second one where PHP has given up the first. */
    public static int $own = 0;

    /** What the handler of the outermost buffer could not throw. */
    private static ?\Throwable $thrown = null;

    public static function capture(): void
    {
        ob_start([self::class, 'sink'], 1, PHP_OUTPUT_HANDLER_CLEANABLE | PHP_OUTPUT_HANDLER_FLUSHABLE);
        self::$own = count(ob_list_handlers());
    }

    /** The handler of the outermost buffer. */
    public static function sink(string $output, int $phase): string
    {
        if ($phase & PHP_OUTPUT_HANDLER_CLEAN) {
            self::$pending = '';
            return '';
        }
        // What comes behind what could not be sent is of no use.
        if (!self::$finished && self::$thrown === null) {
            self::$pending .= $output;
            if (strlen(self::$pending) > self::WHOLE && Call::isOpen()) {
                try {
                    self::flush(Channel::FINITE);
                } catch (\Throwable $error) {
                    // Of the callback of header_register_callback(). PHP calls a handler that throws no more.
                    self::$thrown ??= $error;
                }
            }
        }
        return '';
    }

    /**
     * Moves what is left in a function's own buffers to `$pending`, as PHP does at the end of a request.
     *
     * @param bool $needed the reply is what was printed: without all of it there is none
     */
    public static function collect(bool $needed = true): void
    {
        while (($count = count(ob_list_handlers())) > self::$own && ob_end_flush()) {
        }
        self::$stuck = $count > self::$own;
        if (self::$stuck) {
            self::$pending .= ob_get_contents();
        }
        // Asking costs as much as all the rest: only where the code may have done it, or where an empty reply would be the consequence.
        if ((Code::$buffers || $needed && self::$pending === '') && self::isDeaf()) {
            self::replace();
            if ($needed) {
                self::$thrown ??= new \Error('what was printed is lost: PHP gives up the output of a script that prints while an exception or an exit is on its way');
            }
        }
        if (self::$thrown !== null) {
            [$thrown, self::$thrown] = [self::$thrown, null];
            throw $thrown;
        }
    }

    /**
     * Hears what is printed from now on. PHP calls no handler while an exception is pending (`echo []` prints although the error
     * handler has thrown, an ob_start() callback that throws is stepped over), takes that for a failure, and never calls it again.
     */
    public static function listen(): void
    {
        if (count(ob_list_handlers()) === self::$own && self::isDeaf()) {
            self::replace();
        }
    }

    private static function isDeaf(): bool
    {
        $outermost = self::$stuck ? ob_get_status(true)[self::$own - 1] : ob_get_status();
        return ($outermost['flags'] & PHP_OUTPUT_HANDLER_DISABLED) !== 0;
    }

    /** Above the one that nobody can remove. */
    private static function replace(): void
    {
        self::$deaf = true;
        self::capture();
    }

    /** Forgets everything that is not sent. */
    public static function discard(): void
    {
        while (($count = count(ob_list_handlers())) > self::$own && ob_end_clean()) {
        }
        self::$stuck = $count > self::$own;
        self::$pending = '';
        self::$thrown = null;
    }

    /** Sends what is pending, with the head if that is still to be sent; ends the function when nobody reads and it minds. */
    public static function flush(int $flags = 0): void
    {
        if (!Call::isOpen() || self::$finished) {
            return;
        }
        if (!self::write($flags) && !ini_get('ignore_user_abort')) {
            // As under php-fpm: no `finally` runs, the shutdown functions do.
            exit;
        }
    }

    /** Completes the reply for the client, while the function runs on; ends it when nobody reads and it minds. */
    public static function finish(): void
    {
        self::flush(Channel::FINITE);
        if (!self::$finished && !self::done() && !ini_get('ignore_user_abort')) {
            exit;
        }
    }

    /** Sends what is pending, with the head and its flags if that is still to be sent; false when nobody reads. */
    public static function write(int $flags = 0): bool
    {
        if (Loop::isChild()) {
            return self::leave();
        }
        $head = self::$streaming ? '' : Headers::finish();
        $body = self::$pending;
        self::$pending = '';
        if (!self::$streaming) {
            self::$streaming = true;
            $first = substr($body, 0, Channel::PIECE);
            $isHead = ($_SERVER['REQUEST_METHOD'] ?? '') === 'HEAD';
            if (!Channel::send(Channel::HEAD, $isHead ? Channel::FINITE : $flags, Headers::$status, $head, $first)) {
                return self::leave();
            }
            $body = substr($body, Channel::PIECE);
            if ($isHead) {
                return self::done();
            }
        }
        for ($offset = 0; $offset < strlen($body); $offset += Channel::PIECE) {
            $piece = strlen($body) <= Channel::PIECE ? $body : substr($body, $offset, Channel::PIECE);
            if (!Channel::send(Channel::DATA, 0, 0, '', $piece)) {
                return self::leave();
            }
        }
        return true;
    }

    /** Says that the reply is complete; false when nobody reads. */
    private static function done(): bool
    {
        self::$finished = true;
        return !Loop::isChild() && Channel::send(Channel::DONE) || self::leave();
    }

    private static function leave(): bool
    {
        self::$gone = true;
        self::$finished = true;
        self::$pending = '';
        return false;
    }

    public static function reset(): void
    {
        self::$pending = '';
        self::$streaming = false;
        self::$finished = false;
    }
}
