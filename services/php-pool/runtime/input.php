<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * php://input, which is empty on the command line: a userland `php` stream wrapper, installed only while a call with a body
 * runs. All other php:// streams are opened by the built-in wrapper and passed through.
 */
final class Input
{
    /** The whole body, unless it is spooled or streamed. */
    public static string $body = '';

    /** The file php-pool spooled the body to. */
    public static ?string $spool = null;

    /** The body arrives in frames, while the call runs. */
    public static bool $streamed = false;

    /** The last frame of a streamed body was read. */
    public static bool $complete = true;

    private static bool $installed = false;

    /** STREAM_OPEN_FOR_INCLUDE of PHP's source. */
    private const FOR_INCLUDE = 128;

    /** @var resource|null set by PHP */
    public $context;

    /** @var resource|null the stream this one stands for; null for a body in memory or in frames */
    private $stream = null;

    private int $offset = 0;

    /** Costs 0.3 µs, and 164 bytes that PHP keeps until the process ends: only for calls that have a body. */
    public static function install(): void
    {
        stream_wrapper_unregister('php');
        stream_wrapper_register('php', self::class);
        self::$installed = true;
    }

    public static function reset(): void
    {
        if (self::$installed) {
            @stream_wrapper_restore('php');
            self::$installed = false;
        }
        self::$body = '';
        self::$spool = null;
        self::$streamed = false;
        // Frames that nobody read are skipped by the loop.
        self::$complete = true;
    }

    /** The whole body; of a streamed one, what has not been read yet. */
    public static function contents(): string
    {
        if (self::$spool !== null) {
            return (string) file_get_contents(self::$spool);
        }
        if (!self::$streamed) {
            return self::$body;
        }
        $body = self::$body;
        self::$body = '';
        while (!self::$complete) {
            $body .= self::frame();
        }
        return $body;
    }

    /** The next piece of a streamed body; waits for it. */
    private static function frame(): string
    {
        // The pieces are its parent's.
        $header = Loop::isChild() ? null : Channel::complete('', Channel::HEADER);
        if ($header === null) {
            self::$complete = true;
            return '';
        }
        ['length' => $length, 'kind' => $kind, 'flags' => $flags] = unpack(Channel::HEADER_FORMAT, $header);
        $piece = Channel::complete('', $length);
        if ($piece === null || $kind !== Channel::BODY) {
            // php-pool ends the process, or breaks the protocol: nothing that follows can be understood.
            self::$complete = true;
            Loop::stop();
            return '';
        }
        self::$complete = ($flags & 1) !== 0;
        return $piece;
    }

    public function stream_open(string $path, string $mode, int $options, ?string &$opened): bool
    {
        // As PHP's own wrapper: what a client sends is no code. A filter over a plain file is all that can be included.
        if (($options & self::FOR_INCLUDE) !== 0 && !ini_get('allow_url_include')
            && preg_match('~^php://filter/(?:.*/)?resource=(?!.*://)(?!data:)~is', $path) !== 1) {
            return false;
        }
        if (strcasecmp($path, 'php://input') === 0) {
            if (self::$spool !== null) {
                $this->stream = fopen(self::$spool, 'r') ?: null;
                return $this->stream !== null;
            }
            return true;
        }
        if (stripos($path, 'resource=php://input') !== false) {
            // php://filter opens its resource itself, by the built-in wrapper.
            $path = str_ireplace('resource=php://input', 'resource=' . (self::$spool ?? 'data:;base64,' . base64_encode(self::contents())), $path);
        }
        stream_wrapper_restore('php');
        try {
            $stream = $this->context ? fopen($path, $mode, false, $this->context) : fopen($path, $mode);
        } finally {
            stream_wrapper_unregister('php');
            stream_wrapper_register('php', self::class);
        }
        $this->stream = $stream ?: null;
        return $stream !== false;
    }

    public function stream_read(int $count): string|false
    {
        if ($this->stream !== null) {
            return fread($this->stream, $count);
        }
        if (self::$streamed) {
            while (self::$body === '' && !self::$complete) {
                self::$body = self::frame();
            }
            $piece = substr(self::$body, 0, $count);
            self::$body = substr(self::$body, $count);
            return $piece;
        }
        $piece = substr(self::$body, $this->offset, $count);
        $this->offset += strlen($piece);
        return $piece;
    }

    public function stream_eof(): bool
    {
        if ($this->stream !== null) {
            return feof($this->stream);
        }
        return self::$streamed ? self::$body === '' && self::$complete : $this->offset >= strlen(self::$body);
    }

    public function stream_write(string $bytes): int|false
    {
        return $this->stream === null ? false : fwrite($this->stream, $bytes);
    }

    public function stream_flush(): bool
    {
        return $this->stream === null || fflush($this->stream);
    }

    public function stream_tell(): int
    {
        return $this->stream === null ? $this->offset : (int) ftell($this->stream);
    }

    public function stream_seek(int $offset, int $whence = SEEK_SET): bool
    {
        if ($this->stream !== null) {
            return fseek($this->stream, $offset, $whence) === 0;
        }
        if (self::$streamed) {
            return false;
        }
        $target = $offset + match ($whence) {
            SEEK_CUR => $this->offset,
            SEEK_END => strlen(self::$body),
            default => 0,
        };
        if ($target < 0 || $target > strlen(self::$body)) {
            return false;
        }
        $this->offset = $target;
        return true;
    }

    /** @return array<int|string, int>|false */
    public function stream_stat(): array|false
    {
        if ($this->stream !== null) {
            return fstat($this->stream);
        }
        return ['mode' => 0100444, 'size' => self::$streamed ? 0 : strlen(self::$body)];
    }

    public function stream_truncate(int $size): bool
    {
        return $this->stream !== null && ftruncate($this->stream, $size);
    }

    public function stream_lock(int $operation): bool
    {
        return $this->stream !== null && flock($this->stream, $operation);
    }

    public function stream_set_option(int $option, int $first, ?int $second): bool
    {
        if ($this->stream === null) {
            return false;
        }
        return match ($option) {
            STREAM_OPTION_BLOCKING => stream_set_blocking($this->stream, $first !== 0),
            STREAM_OPTION_READ_TIMEOUT => stream_set_timeout($this->stream, $first, $second ?? 0),
            default => false,
        };
    }

    /** From here on what PHP's own wrapper cannot do either. Of a method that is missing PHP warns, even where it only tries. */
    public function url_stat(string $path, int $flags): array|false
    {
        return false;
    }

    public function mkdir(string $path, int $mode, int $options): bool
    {
        return false;
    }

    public function rmdir(string $path, int $options): bool
    {
        return false;
    }

    public function unlink(string $path): bool
    {
        trigger_error('unlink(): PHP does not allow unlinking', E_USER_WARNING);
        return false;
    }

    public function rename(string $from, string $to): bool
    {
        trigger_error('rename(): PHP wrapper does not support renaming', E_USER_WARNING);
        return false;
    }

    public function stream_metadata(string $path, int $option, mixed $value): bool
    {
        trigger_error('Cannot change what describes a php:// stream', E_USER_WARNING);
        return false;
    }

    /** @return resource|false */
    public function stream_cast(int $as)
    {
        return $this->stream ?? false;
    }

    public function stream_close(): void
    {
        if ($this->stream !== null) {
            fclose($this->stream);
        }
    }
}
