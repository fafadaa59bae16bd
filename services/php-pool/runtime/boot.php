<?php

declare(strict_types=1);

namespace Troupe\Runtime;

use Troupe\Cache;
use Troupe\Request;

/** Loads a pool's code once: the autoloader, then every function file. */
final class Boot
{
    /** Bytes of an error's message that are told: whoever throws may have put a page into it. */
    private const LONGEST_MESSAGE = 4096;

    /** @var list<array{name: string, index: int}> */
    public array $functions = [];

    /** @var list<array{function: string, file: string, line: int, message: string}> the functions that are not served, and why */
    public array $errors = [];

    /** @var list<callable> by index */
    public array $callables = [];

    /** @var list<bool> by index: whether the function takes the request */
    public array $takesRequest = [];

    /** @var list<?Cache> by index: what its attribute says about caching */
    public array $caches = [];

    /** @var list<array<string, string>> by index: what $_SERVER holds in each call of it */
    public array $constants = [];

    /** The file that is being loaded, for the report when it ends the process. */
    public string $loading = '';

    public readonly string $root;
    public readonly int $memorySoft;

    /** @var array<string, string> */
    private readonly array $server;

    public function __construct(string $configuration)
    {
        $values = json_decode((string) file_get_contents($configuration), true, 8, JSON_THROW_ON_ERROR);
        // Where a symbolic link leads, as deployments switch it: all of this code is from there.
        $this->root = realpath($values['root']) ?: throw new BootError("there is no folder {$values['root']}");
        $this->memorySoft = (int) ($values['memory_soft'] ?? 0) ?: PHP_INT_MAX;
        $this->server = ($values['server'] ?? []) + [
            'GATEWAY_INTERFACE' => 'CGI/1.1',
            'SERVER_SOFTWARE' => 'Troupe',
            'DOCUMENT_ROOT' => $this->root,
            'REDIRECT_STATUS' => '200',
            'SCRIPT_NAME' => '',
            'PATH_INFO' => '',
            // As nginx passes them for a request without a body.
            'CONTENT_TYPE' => '',
            'CONTENT_LENGTH' => '',
            'QUERY_STRING' => '',
            'REQUEST_METHOD' => 'GET',
        ];
    }

    /** @throws \Throwable when the autoloader cannot be loaded; a broken function file only gets an entry in `$errors` */
    public function load(): void
    {
        $_SERVER = $this->server;
        unset($GLOBALS['argv'], $GLOBALS['argc']);
        chdir($this->root);
        $autoload = "$this->root/vendor/autoload.php";
        if (is_file($autoload)) {
            $this->require($autoload);
        }
        foreach (self::files($this->root) as $name => $file) {
            try {
                $this->add((string) $name, $file, $this->require($file));
            } catch (\Throwable $error) {
                $ours = $error instanceof BootError;
                $this->errors[] = [
                    'function' => (string) $name,
                    'file' => $ours ? $file : $error->getFile(),
                    'line' => $ours ? 0 : $error->getLine(),
                    'message' => substr($error->getMessage(), 0, self::LONGEST_MESSAGE),
                ];
            }
        }
        $this->loading = '';
        Output::collect();
        if (Output::$stuck) {
            throw new BootError('an output buffer that cannot be ended is left open: all that is printed would go there');
        }
        if (Output::$pending !== '') {
            fwrite(Stdio::$error, 'printed while loading: ' . rtrim(Output::$pending) . "\n");
            Output::reset();
        }
        Code::look();
        Headers::reset();
        Sessions::remember();
        Reset::remember($this->root);
        gc_collect_cycles();
    }

    private function require(string $file): mixed
    {
        $this->loading = $file;
        $before = Descriptors::open();
        $handler = Sessions::handler();
        try {
            // A scope of its own: what a file calls $file or $this must not be ours.
            $value = (static fn (): mixed => require func_get_arg(0))($file);
        } finally {
            $handles = Sessions::takeHandler($handler);
        }
        if ($handles) {
            throw new BootError("$file sets a session handler, which the first session of each process would forget: call session_set_save_handler() in the function");
        }
        $left = Descriptors::leftOpen($before);
        if ($left !== null) {
            throw new BootError("$file leaves $left open, which all processes would share: open it inside the function");
        }
        return $value;
    }

    private function add(string $name, string $file, mixed $value): void
    {
        if (!is_callable($value)) {
            // What `require` gives for a file that returns nothing.
            $what = $value === 1 ? '1, or nothing' : get_debug_type($value);
            throw new BootError("returns $what, not a function: end the file with `return function (...) {...};`, or put it under src/ if it is no function");
        }
        $function = new \ReflectionFunction($value(...));
        $cache = ($function->getAttributes(Cache::class)[0] ?? null)?->newInstance();
        $parameters = $function->getParameters();
        $type = isset($parameters[0]) ? $parameters[0]->getType() : null;
        if ($type instanceof \ReflectionNamedType && !in_array($type->getName(), [Request::class, 'mixed', 'object'], true)) {
            throw new BootError("takes a {$type->getName()}: the only argument of a function is the " . Request::class);
        }
        if (isset($parameters[1]) && !$parameters[1]->isOptional()) {
            throw new BootError('takes more than one argument: the only argument of a function is the ' . Request::class);
        }
        $this->functions[] = ['name' => $name, 'index' => count($this->functions)];
        $this->callables[] = $value;
        $this->caches[] = $cache;
        $this->takesRequest[] = $parameters !== [];
        $this->constants[] = ['SCRIPT_FILENAME' => $file] + $this->server;
    }

    /** @return array<string|int, string> the function files under a folder by function name, sorted */
    private static function files(string $root, string $prefix = ''): array
    {
        $files = [];
        $folder = rtrim("$root/$prefix", '/');
        // Without what is in it, the rest would look like all that there is to serve.
        $entries = Quiet::call(static fn () => scandir($folder)) ?: throw new BootError("cannot read the folder $folder");
        foreach ($entries as $entry) {
            if ($entry[0] === '.' || $entry[0] === '_' || $entry === 'vendor' || $entry === 'src') {
                continue;
            }
            $path = $prefix . $entry;
            if (is_dir("$root/$path")) {
                $files += self::files($root, "$path/");
            } elseif (str_ends_with($entry, '.php') && !in_array($entry, ['vendor.php', 'src.php', '.php'], true)) {
                $files[substr($path, 0, -4)] = "$root/$path";
            }
        }
        return $files;
    }
}

/** Code that cannot be served although PHP could load it. */
final class BootError extends \RuntimeException
{
}
