<?php

declare(strict_types=1);

/** One PHP process, as php-pool sees it: four FIFOs and frames. */
final class Process
{
    public int $pid = 0;
    public int $id = 0;

    /** @var resource */
    public $in;

    /** @var resource */
    public $out;

    /** @var resource */
    private $stdout;

    /** @var array<string, list<resource>> of processes that are not there yet */
    private static array $held = [];

    /** @var resource */
    private $stderr;

    /** @param array<string, int> $index */
    public function __construct(string $path, private readonly array $index, bool $stdio = true)
    {
        // Both ways and first: a process that is quicker than this one would find nobody at the other end, and leave.
        $held = self::$held[$path] ?? [fopen("$path.in", 'r+e'), fopen("$path.out", 'r+e')];
        unset(self::$held[$path]);
        if ($stdio) {
            $this->stdout = fopen("$path.stdout", 're');
            $this->stderr = fopen("$path.stderr", 're');
        }
        $this->in = fopen("$path.in", 'we');
        $this->out = fopen("$path.out", 're');
        $this->ready = $this->frame();
        array_map(fclose(...), $held);
        // As php-pool does: from here on the FIFOs live by their descriptors alone.
        foreach (['in', 'out', 'stdout', 'stderr'] as $fifo) {
            @unlink("$path.$fifo");
        }
    }

    /** @var array<string, mixed> */
    public array $ready;

    public static function prepare(string $path): void
    {
        foreach (['in', 'out', 'stdout', 'stderr'] as $fifo) {
            posix_mkfifo("$path.$fifo", 0600);
            // Both ends, as php-pool holds them: the process finds a reader whenever it looks.
            self::$held[$path][] = fopen("$path.$fifo", 'r+e');
        }
    }

    /** A call, and the whole of its reply. */
    public function call(string $function, array $server = [], string $body = '', array $form = null, int $flags = 0, int $deadline = 0): array
    {
        $this->send($function, $server, $body, $form, $flags, $deadline);
        return $this->reply();
    }

    public function send(string $function, array $server = [], string $body = '', ?array $form = null, int $flags = 0, int $deadline = 0): void
    {
        $server += self::server($function);
        if ($body !== '' && !isset($server['CONTENT_LENGTH'])) {
            $server['CONTENT_LENGTH'] = (string) strlen($body);
        }
        $meta = serialize($form === null ? $server : ['s' => $server] + $form + ['p' => null, 'f' => null, 'b' => null]);
        $this->write(1, $flags | ($form === null ? 0 : 1), $meta . $body, $this->index[$function] ?? 0, strlen($meta), strlen($body), $deadline);
    }

    public function write(int $kind, int $flags = 0, string $payload = '', int $function = 0, int $meta = 0, int $body = 0, int $deadline = 0): void
    {
        fwrite($this->in, pack('VCCvVVPP', strlen($payload), $kind, $flags, $function, $meta, $body, $deadline, 1) . $payload);
    }

    /** @return array<string, string> */
    public static function server(string $function): array
    {
        return [
            'REQUEST_METHOD' => 'GET', 'REQUEST_URI' => "/api/$function", 'QUERY_STRING' => '', 'SERVER_PROTOCOL' => 'HTTP/1.1',
            'REMOTE_ADDR' => '127.0.0.1', 'REMOTE_PORT' => '40000', 'SERVER_NAME' => 'localhost', 'SERVER_PORT' => '8080',
            'SERVER_ADDR' => '127.0.0.1', 'SCRIPT_NAME' => "/api/$function", 'PATH_INFO' => '', 'HTTP_HOST' => 'localhost:8080',
            'HTTP_USER_AGENT' => 'test/1', 'HTTP_ACCEPT' => '*/*', 'REQUEST_ID' => '0123456789abcdef',
        ];
    }

    /** @return array<string, mixed> kind is 'end' when the process is gone */
    public function frame(): array
    {
        $header = self::read($this->out, 16);
        if (strlen($header) < 16) {
            return ['kind' => 'end'];
        }
        $frame = unpack('Vlength/Ckind/Cflags/vstatus/Vhead/Vmicros', $header);
        $payload = self::read($this->out, $frame['length']);
        return [
            'kind' => [1 => 'ready', 'reply', 'head', 'data', 'end of stream', 'expired', 'error', 'done'][$frame['kind']],
            'recycle' => ($frame['flags'] & 1) !== 0,
            'finite' => ($frame['flags'] & 2) !== 0,
            'status' => $frame['status'],
            'head' => $frame['head'] === 0 ? [] : explode("\n", rtrim(substr($payload, 0, $frame['head']), "\n")),
            'body' => substr($payload, $frame['head']),
            'micros' => $frame['micros'],
        ];
    }

    /** The frames of one reply as one: `pieces` are the bodies of a stream; `done`: it was complete before the call was. */
    public function reply(): array
    {
        $reply = $this->frame();
        if ($reply['kind'] !== 'head') {
            return $reply + ($reply['kind'] === 'error' ? ['error' => json_decode($reply['body'], true)] : []);
        }
        $reply['pieces'] = $reply['body'] === '' ? [] : [$reply['body']];
        $reply['done'] = false;
        do {
            $frame = $this->frame();
            if ($frame['kind'] === 'data') {
                $reply['body'] .= $frame['body'];
                $reply['pieces'][] = $frame['body'];
            }
            $reply['done'] = $reply['done'] || $frame['kind'] === 'done';
        } while ($frame['kind'] === 'data' || $frame['kind'] === 'done');
        return ['kind' => 'stream', 'last' => $frame['kind'], 'recycle' => $frame['recycle'] ?? false] + $reply;
    }

    /** What was logged so far; waits for the end of the process when asked to. */
    public function errors(bool $wait = false): string
    {
        stream_set_blocking($this->stderr, $wait);
        return (string) stream_get_contents($this->stderr);
    }

    public function output(): string
    {
        stream_set_blocking($this->stdout, false);
        return (string) stream_get_contents($this->stdout);
    }

    /** @param resource $stream */
    private static function read($stream, int $length): string
    {
        $bytes = '';
        while (strlen($bytes) < $length && ($more = fread($stream, $length - strlen($bytes))) !== '' && $more !== false) {
            $bytes .= $more;
        }
        return $bytes;
    }
}
