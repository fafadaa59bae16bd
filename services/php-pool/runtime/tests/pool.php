<?php

declare(strict_types=1);

/** The other side of the protocol: starts a real zygote over real FIFOs, as php-pool does. */
final class Pool
{
    public readonly string $run;
    public readonly string $root;

    /** @var array<string, mixed> the event that ended the boot */
    public array $ready = [];

    /** @var array<string, int> */
    public array $index = [];

    /** @var list<array<string, mixed>> events not asked for yet */
    private array $events = [];

    /** @var resource */
    private $zygote;

    /** @var resource */
    private $commands;

    /** @var resource */
    private $told;

    private int $next = 1;

    /**
     * @param array<string, string> $files path below the root => PHP code without the opening tag
     * @param array<string, mixed> $boot more of boot.json
     * @param array<string, string> $ini
     */
    public function __construct(array $files, array $boot = [], array $ini = [])
    {
        $this->run = sys_get_temp_dir() . '/troupe-test-' . getmypid() . '-' . bin2hex(random_bytes(4));
        $this->root = "$this->run/functions";
        mkdir($this->root, 0700, true);
        foreach ($files as $path => $code) {
            @mkdir(dirname("$this->root/$path"), 0700, true);
            file_put_contents("$this->root/$path", str_starts_with($code, '<') ? $code : "<?php\n$code");
        }
        file_put_contents("$this->run/boot.json", json_encode($boot + ['pool' => 'test', 'root' => $this->root, 'memory_soft' => 0]));
        posix_mkfifo("$this->run/ctl.in", 0600);
        posix_mkfifo("$this->run/ctl.out", 0600);
        // Both ways and first: a zygote that is quicker than this process would find nobody at the other end, and leave.
        $held = [fopen("$this->run/ctl.in", 'r+e'), fopen("$this->run/ctl.out", 'r+e')];
        $this->zygote = proc_open(
            self::command(dirname(__DIR__) . '/zygote.php', $ini, "$this->run/boot.json"),
            [['file', dirname(__DIR__) . '/start.php', 'r'], ['file', "$this->run/out", 'a'], ['file', "$this->run/err", 'a']],
            $pipes,
            null,
            ['PATH' => getenv('PATH'), 'HOME' => '/tmp', 'LANG' => 'C.UTF-8'],
        );
        $this->commands = fopen("$this->run/ctl.in", 'we');
        $this->told = fopen("$this->run/ctl.out", 're');
        $this->ready = $this->event();
        array_map(fclose(...), $held);
        foreach ($this->ready['functions'] ?? [] as $function) {
            $this->index[$function['name']] = $function['index'];
        }
    }

    /** @return list<string> */
    public static function command(string $script, array $ini, string ...$arguments): array
    {
        $command = [PHP_BINARY];
        foreach (file(dirname(__DIR__) . '/defaults.ini') as $line) {
            $line = trim($line);
            if ($line !== '' && $line[0] !== ';') {
                [$key, $value] = array_map(trim(...), explode('=', $line, 2));
                array_push($command, '-d', "$key=$value");
            }
        }
        foreach ($ini as $key => $value) {
            array_push($command, '-d', "$key=$value");
        }
        return [...$command, '--', $script, ...$arguments];
    }

    public function process(): Process
    {
        $id = $this->next++;
        Process::prepare("$this->run/$id");
        $this->tell("fork $id");
        $process = new Process("$this->run/$id", $this->index);
        $process->pid = $this->event('forked')['pid'];
        $process->id = $id;
        return $process;
    }

    public function tell(string $line): void
    {
        fwrite($this->commands, "$line\n");
    }

    /** The next event (of a kind); waits for it. */
    public function event(?string $kind = null): array
    {
        foreach ($this->events as $at => $event) {
            if ($kind === null || $event['event'] === $kind) {
                array_splice($this->events, $at, 1);
                return $event;
            }
        }
        while (true) {
            $line = fgets($this->told);
            if ($line === false) {
                return ['event' => 'end'];
            }
            $event = json_decode($line, true);
            if ($kind === null || $event['event'] === $kind) {
                return $event;
            }
            $this->events[] = $event;
        }
    }

    public function errors(): string
    {
        return (string) file_get_contents("$this->run/err");
    }

    /** Leaves as a dead php-pool does. */
    public function abandon(): void
    {
        fclose($this->commands);
    }

    public function close(): void
    {
        if (is_resource($this->commands)) {
            fclose($this->commands);
        }
        proc_close($this->zygote);
        exec('rm -rf ' . escapeshellarg($this->run));
    }
}
