<?php

declare(strict_types=1);

namespace Troupe\Runtime;

/*
 * The zygote of a pool: loads the code once and forks a process on command.
 *
 *     php -d … -- runtime/zygote.php RUN/boot.json < runtime/start.php
 *
 * Commands come in on RUN/ctl.in, one a line: `fork ID`, `reap`, `stop`. Events go out on RUN/ctl.out, one JSON object a line.
 * When ctl.in ends, php-pool is dead: every process is killed, with all it has started.
 */

require __DIR__ . '/load.php';

final class Zygote
{
    /** Exits are told by SIGCHLD; this is for one that came between two looks. */
    private const POLL_MICROSECONDS = 250_000;

    /** @var resource */
    private $commands;

    /** @var resource */
    private $events;

    /** @var array<int, int> ids of the processes by pid */
    private array $processes = [];

    private string $pending = '';
    private bool $stopping = false;
    /** Whoever has asked for it ends the processes, with all that they have started. */
    private bool $leaving = false;

    public function __construct(private readonly string $run)
    {
        // Without "n", an open would wait forever for a php-pool that died in the meantime.
        $this->commands = @fopen("$run/ctl.in", 'ren') ?: exit(1);
        $this->events = @fopen("$run/ctl.out", 'wen') ?: exit(1);
        stream_set_blocking($this->events, true);
        stream_set_blocking($this->commands, false);
    }

    public function boot(string $configuration): Boot
    {
        $boot = new Boot($configuration);
        Shutdown::$hook = function (?array $error) use ($boot): void {
            $this->fatal($error['message'] ?? 'exit was called while this file was loaded', $error['file'] ?? $boot->loading, $error['line'] ?? 0);
        };
        Shutdown::arm();
        try {
            $boot->load();
        } catch (\Throwable $error) {
            Failure::log($error);
            $this->fatal($error->getMessage(), $error->getFile(), $error->getLine());
            Shutdown::$hook = null;
            exit(1);
        }
        Shutdown::$hook = null;
        $this->tell(['event' => 'ready', 'php' => PHP_VERSION, 'functions' => $boot->functions, 'errors' => $boot->errors]);
        return $boot;
    }

    /** Serves commands; returns the id of the process in each process it forks, null when the zygote itself is to end. */
    public function serve(): ?int
    {
        pcntl_async_signals(true);
        // The kernel's word that php-pool is dead: from here on the end of the channel says it, and more has to be done.
        pcntl_signal(SIGUSR2, SIG_IGN);
        pcntl_signal(SIGCHLD, static function (): void {
            // Its arrival ends the wait below; that is all.
        }, false);
        // A signal ends the wait with a warning, for which a handler of the code's must not end all processes.
        set_error_handler(static fn (): bool => true);
        while (!$this->stopping || $this->processes !== []) {
            $read = [$this->commands];
            $write = $except = [];
            if (stream_select($read, $write, $except, 0, self::POLL_MICROSECONDS) > 0) {
                $bytes = fread($this->commands, 8192);
                if ($bytes === '' || $bytes === false) {
                    if (feof($this->commands)) {
                        $this->killAll();
                        return null;
                    }
                }
                $this->pending .= $bytes;
            }
            while (($end = strpos($this->pending, "\n")) !== false) {
                $command = explode(' ', substr($this->pending, 0, $end));
                $this->pending = substr($this->pending, $end + 1);
                if ($command[0] === 'fork' && !$this->stopping && ($id = $this->fork((int) ($command[1] ?? 0))) !== null) {
                    return $id;
                }
                $this->stopping = $this->stopping || $command[0] === 'stop';
                $this->leaving = $this->leaving || $command[0] === 'leave';
            }
            $this->reap();
        }
        return null;
    }

    private function fork(int $id): ?int
    {
        $pid = pcntl_fork();
        if ($pid === 0) {
            posix_setpgid(0, 0);
            pcntl_signal(SIGCHLD, SIG_DFL);
            pcntl_signal(SIGUSR2, SIG_DFL);
            pcntl_async_signals(false);
            restore_error_handler();
            fclose($this->commands);
            fclose($this->events);
            return $id;
        }
        if ($pid < 0) {
            $this->tell(['event' => 'exited', 'id' => $id, 'pid' => 0, 'code' => null, 'signal' => null, 'message' => 'cannot fork: ' . pcntl_strerror(pcntl_get_last_error())]);
            return null;
        }
        // Both sides do it, so that the group exists whoever is first.
        posix_setpgid($pid, $pid);
        $this->processes[$pid] = $id;
        $this->tell(['event' => 'forked', 'id' => $id, 'pid' => $pid]);
        return null;
    }

    private function reap(): void
    {
        while (($pid = pcntl_waitpid(-1, $status, WNOHANG)) > 0) {
            $id = $this->processes[$pid] ?? null;
            unset($this->processes[$pid]);
            if ($id === null) {
                continue;
            }
            $this->tell([
                'event' => 'exited',
                'id' => $id,
                'pid' => $pid,
                'code' => pcntl_wifexited($status) ? pcntl_wexitstatus($status) : null,
                'signal' => pcntl_wifsignaled($status) ? pcntl_wtermsig($status) : null,
            ]);
            // What it has started and left behind goes with it; at the very end it is asked first, and killed by whoever asked.
            if (!$this->leaving) {
                posix_kill(-$pid, SIGKILL);
            }
        }
    }

    private function killAll(): void
    {
        foreach ($this->processes as $pid => $_) {
            posix_kill(-$pid, SIGKILL);
        }
    }

    private function fatal(string $message, string $file, int $line): void
    {
        $this->tell(['event' => 'fatal', 'message' => $message, 'file' => $file, 'line' => $line]);
    }

    /** @param array<string, mixed> $event */
    private function tell(array $event): void
    {
        @fwrite($this->events, json_encode($event, Channel::JSON) . "\n");
    }
}

// In a function, so that nothing of it is a global variable to the functions.
(static function (string $configuration): void {
    $run = dirname($configuration);
    $zygote = new Zygote($run);
    $boot = $zygote->boot($configuration);
    $id = $zygote->serve();
    if ($id === null) {
        exit(0);
    }
    unset($zygote);
    // lcg_value() cannot be seeded: so many steps set this process apart from the 63 forked before it, and the 63 after it.
    for ($steps = (int) $id % 64 * 16 + random_int(1, 16); $steps > 0; $steps--) {
        lcg_value();
    }
    Stdio::reopen("$run/$id.stdout", "$run/$id.stderr");
    Stdio::defineConstants();
    Channel::open("$run/$id");
    (new Loop($boot))->serve();
    exit(0);
})($argv[2]);
