<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/**
 * The frames between php-pool and this process: two FIFOs, little endian.
 *
 * To PHP, 32 bytes and the payload: u32 length, u8 kind, u8 flags, u16 function, u32 meta length, u32 body length,
 * u64 deadline (nanoseconds of CLOCK_MONOTONIC, which is hrtime()), u64 call id.
 * To php-pool, 16 bytes and the payload: u32 length, u8 kind, u8 flags, u16 status, u32 head length, u32 microseconds.
 */
final class Channel
{
    public const HEADER = 32;
    public const HEADER_FORMAT = 'Vlength/Ckind/Cflags/vfunction/Vmeta/Vbody/Pdeadline';
    /** The same as words: length, kind, flags and function; both lengths; the deadline. */
    public const HEADER_WORDS = 'Pa/Pb/Pc';

    public const CALL = 1;
    public const BODY = 2;
    public const STOP = 3;

    public const READY = 1;
    public const REPLY = 2;
    public const HEAD = 3;
    public const DATA = 4;
    public const END = 5;
    public const EXPIRED = 6;
    public const ERROR = 7;
    /** The client has all of the reply; the function runs on. */
    public const DONE = 8;

    /** Flag of the frames that end a call: this process exits after it. */
    public const RECYCLE = 1;
    /** Flag of HEAD: the function asked for no stream; the reply is in pieces because it is long, or because it is finished early. */
    public const FINITE = 2;

    /** The longest payload of a frame from here; of READY alone it may be more where no zygote has told what was loaded. */
    public const LONGEST = 1 << 20;
    /** The longest body of one DATA frame: what a pipe takes at once. */
    public const PIECE = 65536;

    /** How php-pool is told what was loaded: names and messages are the code's, and may be no text. */
    public const JSON = JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE;

    /** @var resource */
    public static $in;

    /** @var resource */
    public static $out;

    /** @param string $path of the two FIFOs, without `.in` and `.out`; they are opened close-on-exec */
    public static function open(string $path): void
    {
        // Without "n", an open would wait forever for a php-pool that died in the meantime.
        self::$in = @fopen("$path.in", 'ren') ?: exit(1);
        self::$out = @fopen("$path.out", 'wen') ?: exit(1);
        stream_set_blocking(self::$in, true);
        stream_set_blocking(self::$out, true);
        // A frame of 64 KiB is then read with one system call instead of eight.
        stream_set_chunk_size(self::$in, self::PIECE);
    }

    /** Reads what is missing of `$length` bytes; null when php-pool is gone. (From a FIFO, one fread() waits for all it is asked for.) */
    public static function complete(string|false $bytes, int $length): ?string
    {
        $bytes = (string) $bytes;
        while (strlen($bytes) < $length) {
            $more = fread(self::$in, $length - strlen($bytes));
            if ($more === '' || $more === false) {
                return null;
            }
            $bytes .= $more;
        }
        return $bytes;
    }

    /** Writes one frame; false when its reader is gone. */
    public static function send(int $kind, int $flags = 0, int $status = 0, string $head = '', string $body = '', int $micros = 0): bool
    {
        $frame = pack('VCCvVV', strlen($head) + strlen($body), $kind, $flags, $status, strlen($head), $micros) . $head . $body;
        try {
            return @fwrite(self::$out, $frame) === strlen($frame);
        } catch (\Throwable) {
            // A function's own error handler turned the notice about the broken pipe into an exception.
            return false;
        }
    }
}
