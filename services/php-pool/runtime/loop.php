<?php

declare(strict_types=1);

namespace Troupe\Runtime;

use Troupe\Request;

/** The life of one process: a call, its reply, the reset; and again. */
final class Loop
{
    /** The process that serves; one that a function has forked must not answer in its place. */
    public static int $pid = 0;

    private static bool $serving = true;

    /** The reply, once the function has returned it; null when what it printed is the reply. */
    private ?string $body = null;

    private ?\Throwable $failure = null;

    /** The function ended by exit: what it printed is the reply, even if that is nothing. */
    private bool $exited = false;

    /** Exits are survived in a Fiber now. */
    private bool $surviving = false;

    private bool $recycle = false;

    /** How often this call has ended by exit or a fatal error: a handler that exits each time must not hold the process. */
    private int $ends = 0;

    private const ENDS = 10;

    public function __construct(private readonly Boot $boot)
    {
    }

    /** After fork or exec: READY, then calls until php-pool goes away or says stop. */
    public function serve(array $ready = []): void
    {
        self::$pid = (int) getmypid();
        mt_srand();
        Reset::$seeded = false;
        Superglobals::remember();
        Shutdown::$functions = [];
        Shutdown::$hook = $this->ended(...);
        Channel::send(Channel::READY, body: (string) json_encode(['pid' => self::$pid, 'memory' => memory_get_usage(true)] + $ready, Channel::JSON));
        $this->run();
        Shutdown::$hook = null;
    }

    /** Whether this process was forked by a function: it has no part in what goes on between its parent and php-pool. */
    public static function isChild(): bool
    {
        return getmypid() !== self::$pid;
    }

    public static function stop(): void
    {
        self::$serving = false;
    }

    private function run(): void
    {
        $callables = $this->boot->callables;
        $in = Channel::$in;
        while (self::$serving) {
            $header = fread($in, Channel::HEADER);
            if (strlen((string) $header) !== Channel::HEADER && ($header = Channel::complete($header, Channel::HEADER)) === null) {
                self::$serving = false;
                return;
            }
            // Three words taken apart here cost half of what seven named fields do.
            ['a' => $first, 'b' => $second, 'c' => $deadline] = unpack(Channel::HEADER_WORDS, $header);
            $length = $first & 0xFFFF_FFFF;
            $kind = ($first >> 32) & 0xFF;
            $flags = ($first >> 40) & 0xFF;
            $function = ($first >> 48) & 0xFFFF;
            $meta = $second & 0xFFFF_FFFF;
            $payload = '';
            if ($length !== 0) {
                $payload = fread($in, $length);
                if (strlen((string) $payload) !== $length && ($payload = Channel::complete($payload, $length)) === null) {
                    self::$serving = false;
                    return;
                }
            }
            if ($kind !== Channel::CALL) {
                // What is left of a streamed body that the function did not read to its end is skipped.
                self::$serving = $kind === Channel::BODY;
                continue;
            }
            Call::$started = hrtime(true);
            if ($deadline !== 0 && Call::$started >= $deadline) {
                self::$serving = ($flags & Call::LAST) === 0;
                Channel::send(Channel::EXPIRED, self::$serving ? 0 : Channel::RECYCLE);
                continue;
            }
            Call::$flags = $flags;
            if (($flags & (Call::MARK_STDOUT | Call::MARK_STDERR)) !== 0) {
                Stdio::mark($flags, substr($header, Channel::HEADER - 8));
            }
            Call::$stage = Call::RUNNING;
            try {
                $this->prepare($function, $flags, $meta === $length ? $payload : substr($payload, 0, $meta), $meta === $length ? '' : substr($payload, $meta));
                $value = $this->boot->takesRequest[$function]
                    ? $callables[$function](new Request($_SERVER, $_GET, $_POST, $_COOKIE, $_FILES))
                    : $callables[$function]();
                $body = Reply::body($value);
                unset($value);
                if (is_iterable($body)) {
                    $this->stream($body);
                    // Ends a generator that was left early: its `finally` blocks run.
                    $body = null;
                    $this->exited = true;
                }
                $this->body = $body;
            } catch (\Throwable $error) {
                unset($value, $body);
                $this->caught($error);
            }
            $this->finish();
        }
    }

    /** Superglobals and body of the call. */
    private function prepare(int $function, int $flags, string $meta, string $body): void
    {
        if (!isset($this->boot->constants[$function])) {
            throw new \OutOfBoundsException("there is no function number $function");
        }
        Call::$function = $function;
        Headers::$cache = $this->boot->caches[$function];
        // Unserialize() without its option is safe and a third faster: php-pool writes strings and arrays only.
        if (($flags & (Call::FORM | Call::STREAM)) === 0) {
            $variables = $flags & Call::PLAIN ? Superglobals::plain($meta) : unserialize($meta);
            Superglobals::fill($variables, $this->boot->constants[$function]);
            if ($body !== '') {
                Superglobals::body($body);
            }
            return;
        }
        Input::$streamed = ($flags & Call::STREAM) !== 0;
        Input::$complete = !Input::$streamed;
        $form = unserialize($meta);
        if (($flags & Call::FORM) === 0) {
            $form = ['s' => $form];
        }
        Superglobals::fill($form['s'], $this->boot->constants[$function]);
        Superglobals::body($body, $form['b'] ?? null, $form['p'] ?? null, $form['f'] ?? null);
    }

    /** @param iterable<mixed> $pieces each is sent at once; what was printed meanwhile goes before it */
    private function stream(iterable $pieces): void
    {
        foreach ($pieces as $piece) {
            if (Output::$finished) {
                return;
            }
            Output::$pending .= Reply::piece($piece);
            Output::write();
            if (Output::$finished) {
                return;
            }
        }
    }

    /** An exception that the function did not catch: the handler it has set answers, or nobody. */
    private function caught(\Throwable $error): void
    {
        if (!Output::$streaming) {
            Output::discard();
        }
        Output::listen();
        $handler = set_exception_handler(null);
        restore_exception_handler();
        if ($handler === null) {
            Failure::log($error);
            $this->failure = $error;
        } else {
            try {
                if (!Output::$streaming && Headers::$status === 200) {
                    Headers::$status = 500;
                }
                $handler($error);
                $this->exited = true;
            } catch (\Throwable $error) {
                Failure::log($error);
                $this->failure = $error;
            }
        }
        if ($this->surviving && $error instanceof \FiberError) {
            $this->recycle = true;
        }
    }

    /** From the end of the function to the next call. After an exit it is entered again and goes on where it was. */
    private function finish(): void
    {
        if (self::isChild()) {
            // Forked by the function: who waits for the reply waits for its parent's.
            exit(0);
        }
        try {
            if (Shutdown::$functions !== []) {
                Call::$stage = Call::CLOSING;
                Shutdown::run();
            }
            Call::$stage = Call::SENDING;
            Output::collect(!Output::$finished && ($this->body === null || Output::$streaming));
            Sessions::close();
        } catch (\Throwable $error) {
            // A shutdown function, a handler of an output buffer, a session handler.
            Shutdown::$functions = [];
            $this->caught($error);
            Call::$stage = Call::SENDING;
        }
        if (memory_get_usage() > $this->boot->memorySoft) {
            gc_collect_cycles();
            $this->recycle = $this->recycle || memory_get_usage() > $this->boot->memorySoft;
        }
        if ((Call::$flags & Call::LAST) !== 0 || Output::$gone || Output::$stuck || Output::$deaf) {
            $this->recycle = true;
        }
        if (!Output::$gone) {
            try {
                $this->send($this->recycle ? Channel::RECYCLE : 0);
            } catch (\Throwable $error) {
                // The callback of header_register_callback().
                Failure::log($error);
                Channel::send(Channel::ERROR, $this->recycle ? Channel::RECYCLE : 0, 500, '', Failure::describe($error), Call::micros());
            }
        }
        $this->reset();
    }

    /**
     * Takes away what the call leaves. Destructors run here that are the call's own code: what they print, send, start or throw goes
     * with it, and one that exits ends the process.
     */
    private function reset(): void
    {
        Call::$stage = Call::RESETTING;
        try {
            $this->body = null;
            $this->failure = null;
            $this->exited = false;
            $this->ends = 0;
            Headers::$callback = null;
            Shutdown::$functions = [];
            Uploads::reset();
            if (!$this->recycle && !Output::$gone) {
                Input::reset();
                Sessions::reset();
                Code::update();
                Superglobals::reset();
                Reset::all();
                // What destructors have begun meanwhile.
                Sessions::reset();
                if (Reset::isChanged()) {
                    Reset::all();
                }
                Output::discard();
            }
        } catch (\Throwable $error) {
            Failure::log($error);
            $this->recycle = true;
        }
        if ($this->recycle || Output::$gone || Output::$stuck) {
            self::$serving = false;
        }
        Output::reset();
        Headers::reset();
        Shutdown::$functions = [];
        Call::$stage = Call::IDLE;
    }

    private function send(int $flags): void
    {
        if ($this->failure !== null) {
            self::$serving = Channel::send(Channel::ERROR, $flags, 500, '', Failure::describe($this->failure), Call::micros());
            return;
        }
        if (!Output::$streaming) {
            $body = $this->body;
            if ($body === null) {
                $body = Output::$pending;
                if ($body === '' && !$this->exited && Headers::$status === 200) {
                    Headers::$status = 204;
                }
            } elseif (Output::$pending !== '') {
                error_log($this->boot->functions[Call::$function]['name'] . ' returned its reply; what it printed besides is dropped: ' . substr(Output::$pending, 0, 1000));
            }
            if (strlen($body) <= Output::WHOLE) {
                $head = Headers::finish();
                self::$serving = Channel::send(Channel::REPLY, $flags, Headers::$status, $head, $body, Call::micros());
                return;
            }
            // Here the length is known, so the client can learn that it got all of it.
            Headers::put('content-length', 'Content-Length: ' . strlen($body) . "\n", true);
            Output::$pending = $body;
        } elseif ($this->body !== null && !Output::$finished) {
            Output::$pending .= $this->body;
        }
        $this->body = null;
        if (Output::$pending === '' || Output::write(Channel::FINITE)) {
            self::$serving = Channel::send(Channel::END, $flags, micros: Call::micros());
        }
    }

    /** @param ?array{type: int, message: string, file: string, line: int} $error the fatal error that ended the script; null: an exit */
    private function ended(?array $error): void
    {
        if (!Call::isOpen() || self::isChild()) {
            return;
        }
        Shutdown::$hook = null;
        $this->surviving = true;
        Shutdown::survive($this->proceed(...), $error);
    }

    /** Completes the call that ended in the middle, and goes on with the next ones if the process can. */
    private function proceed(?array $error): bool
    {
        if (Call::$stage === Call::RESETTING || self::isChild()) {
            return false;
        }
        if (Call::$stage !== Call::IDLE) {
            if (++$this->ends > self::ENDS) {
                return false;
            }
            if ($error !== null) {
                $this->recycle = true;
                $this->afterFatal($error);
            } else {
                Code::look();
                $this->recycle = $this->recycle || Code::$fibers;
                $this->afterExit();
            }
            $this->finish();
        }
        $this->run();
        return false;
    }

    private function afterExit(): void
    {
        if (Call::$stage === Call::RUNNING) {
            $this->exited = true;
            $this->body = null;
            return;
        }
        // An exit in a shutdown function skips the others; one in a session handler leaves the session unwritten.
        Shutdown::$functions = [];
        if (Call::$stage === Call::SENDING && function_exists('session_abort')) {
            session_abort();
        }
    }

    /** What was printed is forgotten; what the function's shutdown functions make of the error is the reply, if they print anything. */
    private function afterFatal(array $error): void
    {
        Failure::makeRoom();
        if (ob_list_handlers() === []) {
            // Out of memory, PHP gives up all output buffers.
            Output::capture();
        }
        if (!Output::$streaming) {
            Output::discard();
            Headers::$status = 500;
        }
        Output::listen();
        $this->body = null;
        $this->exited = true;
        if (Call::$stage === Call::RUNNING) {
            Call::$stage = Call::CLOSING;
            try {
                Shutdown::run();
            } catch (\Throwable $thrown) {
                Failure::log($thrown);
            }
        }
        Shutdown::$functions = [];
        // Until here the shutdown functions could ask for it.
        error_clear_last();
        try {
            Output::collect();
        } catch (\Throwable $thrown) {
            Failure::log($thrown);
            Output::$pending = '';
        }
        if (Output::$pending === '' || Output::$streaming) {
            $this->failure = new FatalError($error);
        }
    }
}

/** A fatal error of PHP's, carried where exceptions are. */
final class FatalError extends \Error
{
    /** @param array{type: int, message: string, file: string, line: int} $error */
    public function __construct(array $error)
    {
        parent::__construct($error['message']);
        $this->file = $error['file'];
        $this->line = $error['line'];
    }
}
