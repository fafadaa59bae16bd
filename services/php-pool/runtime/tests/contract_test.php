<?php

declare(strict_types=1);

/* What a function may return, print, throw and leave, and what becomes of it. */

return [
    'values become replies' => static function (): void {
        $pool = new Pool([
            'hello.php' => 'use Troupe\Request; return function (Request $r): array { return ["message" => "hello", "name" => $r->query("name", "world")]; };',
            'text.php' => 'return fn () => "<b>x</b>";',
            'nothing.php' => 'return function () {};',
            'moved.php' => 'return function () { header("Location: /x"); };',
            'number.php' => 'return fn () => 1.0;',
            'object.php' => 'class Point { public $x = 1; protected $y = 2; } return fn () => new Point;',
            'own.php' => 'class Own implements JsonSerializable { function jsonSerialize(): mixed { return ["é/"]; } } return fn () => new Own;',
            'response.php' => 'use Troupe\Response; return fn () => Response::json(["e" => 1], 422)->withHeader("X-A", ["1", "2"])->withCookie("a", "b c", ["httponly" => true]);',
            'redirect.php' => 'use Troupe\Response; return fn () => Response::redirect("/there", 303);',
            'closure.php' => 'return fn () => fn () => 1;',
            'broken.php' => 'return fn () => ["x" => "\xff"];',
            'type.php' => 'return function () { header("Content-Type: application/problem+json"); return ["a" => 1]; };',
        ]);
        same([], $pool->ready['errors']);
        $p = $pool->process();
        $r = $p->call('hello', ['QUERY_STRING' => 'name=Ann']);
        same(['reply', 200, '{"message":"hello","name":"Ann"}'], [$r['kind'], $r['status'], $r['body']]);
        contains('Content-Type: application/json', $r['head']);
        same('{"message":"hello","name":"world"}', $p->call('hello')['body']);
        $r = $p->call('text');
        same([200, '<b>x</b>', ['Content-Type: text/html; charset=UTF-8']], [$r['status'], $r['body'], $r['head']]);
        $r = $p->call('nothing');
        same([204, '', []], [$r['status'], $r['body'], $r['head']]);
        same(302, $p->call('moved')['status']);
        same('1.0', $p->call('number')['body']);
        same('{"x":1}', $p->call('object')['body']);
        same('["é/"]', $p->call('own')['body']);
        $r = $p->call('response');
        same([422, ['Content-Type: application/json', 'X-A: 1', 'X-A: 2', 'Set-Cookie: a=b%20c; HttpOnly']], [$r['status'], $r['head']]);
        $r = $p->call('redirect');
        same([303, true], [$r['status'], in_array('Location: /there', $r['head'], true)]);
        same(['error', 'TypeError'], [($r = $p->call('closure'))['kind'], $r['error']['class']]);
        same(['error', 'JsonException'], [($r = $p->call('broken'))['kind'], $r['error']['class']]);
        same(['Content-Type: application/problem+json'], $p->call('type')['head']);
        same(200, $p->call('hello')['status'], 'the process goes on');
        $pool->close();
    },

    'output is the body, unless a value is' => static function (): void {
        $pool = new Pool([
            'echo.php' => 'return function () { echo "a"; print "b"; ?>c<?php };',
            'both.php' => 'return function () { echo "noise"; return ["a" => 1]; };',
            'buffers.php' => 'return function () { echo "1"; ob_start(); echo "2"; ob_start(fn ($s) => strtoupper($s)); echo "x"; };',
            'levels.php' => 'return function () { ob_start(); ob_start(); echo "gone"; while (ob_get_level()) ob_end_clean(); echo ob_get_level(), "kept"; };',
            'clean.php' => 'return function () { echo "gone"; ob_clean(); echo "kept"; };',
            'stdout.php' => 'return function () { fwrite(STDOUT, "to the log\n"); fwrite(STDERR, "too\n"); echo shell_exec("echo child >&2; echo out"); passthru("echo passed"); file_put_contents("php://output", "put"); file_put_contents("php://stderr", "three\n"); };',
            'warning.php' => 'return function () { return [1, $undefined]; };',
        ]);
        $p = $pool->process();
        same('abc', $p->call('echo')['body']);
        same('{"a":1}', $p->call('both')['body']);
        same('12X', $p->call('buffers')['body']);
        same('0kept', $p->call('levels')['body']);
        same('kept', $p->call('clean')['body']);
        same("out\npassed\nput", $p->call('stdout')['body']);
        same('[1,null]', $p->call('warning')['body']);
        usleep(50_000);
        same("to the log\n", $p->output());
        $log = $p->errors();
        foreach (['noise', "too\n", "child\n", "three\n", 'Undefined variable $undefined'] as $line) {
            contains($line, $log);
        }
        // Where it is asked for, the call's number stands before what it prints.
        $mark = "\x1e0100000000000000\n";
        $p->call('stdout', flags: 32);
        same([$mark . "to the log\n", "too\nchild\nthree\n"], [$p->output(), $p->errors()]);
        $p->call('stdout', flags: 32 | 64);
        same([$mark . "to the log\n", $mark . "too\nchild\nthree\n"], [$p->output(), $p->errors()]);
        $pool->close();
    },

    'exit keeps body, status and headers, again and again' => static function (): void {
        $pool = new Pool([
            'bye.php' => 'return function () { register_shutdown_function(function () { echo "!"; }); echo "x"; header("X-A: 1"); http_response_code(403); exit; };',
            'die.php' => 'return function () { ob_start(); echo "a"; die("b"); };',
            'twice.php' => 'return function () { register_shutdown_function(function () { echo "s"; exit; }); register_shutdown_function(function () { echo "never"; }); exit("e"); };',
            'hello.php' => 'return fn () => ["ok" => true];',
            'later.php' => 'return function () { register_shutdown_function(function () { echo "s"; }); };',
        ]);
        $p = $pool->process();
        for ($i = 0; $i < 50; $i++) {
            $r = $p->call('bye');
            same(['reply', 403, 'x!', ['Content-Type: text/html; charset=UTF-8', 'X-A: 1'], false], [$r['kind'], $r['status'], $r['body'], $r['head'], $r['recycle']]);
            same('ab', $p->call('die')['body']);
            same('es', $p->call('twice')['body']);
            same('{"ok":true}', $p->call('hello')['body']);
            same('s', $p->call('later')['body']);
        }
        $pool->close();
    },

    'a recursion through PHP itself goes as deep after an exit as before' => static function (): void {
        // Code that mentions Fibers would be replaced after an exit.
        $pool = new Pool([
            'bye.php' => 'return function () { exit("bye"); };',
            'deep.php' => 'function descend(int $depth): int { return $depth === 0 ? 0 : 1 + array_map("descend", [$depth - 1])[0]; } return fn () => ["depth" => descend(6000), "stack" => ini_get("fib" . "er.stack_size")];',
        ]);
        $p = $pool->process();
        for ($i = 0; $i < 3; $i++) {
            same('{"depth":6000,"stack":""}', $p->call('deep')['body'] ?? 'ended', "after $i exits");
            same('bye', $p->call('bye')['body']);
        }
        $pool->close();
    },

    'Fibers work; after an exit the process is replaced' => static function (): void {
        $pool = new Pool([
            'fiber.php' => 'return function () { $f = new Fiber(fn () => Fiber::suspend(1) + 1); $a = $f->start(); $f->resume(2); return [$a, $f->getReturn()]; };',
            'bye.php' => 'return function () { exit("bye"); };',
        ]);
        $p = $pool->process();
        same('[1,3]', $p->call('fiber')['body']);
        $r = $p->call('bye');
        same(['bye', true], [$r['body'], $r['recycle']]);
        same('end', $p->frame()['kind']);
        same(['event' => 'exited', 'id' => 1, 'pid' => $p->pid, 'code' => 0, 'signal' => null], $pool->event('exited'));
        $pool->close();
    },

    'uncaught exceptions' => static function (): void {
        $pool = new Pool([
            'throw.php' => 'return function () { echo "partial"; header("X-A: 1"); throw new RuntimeException("no \xff luck", 3); };',
            'parse.php' => 'return function () { include __DIR__ . "/_bad.inc"; };',
            '_bad.inc' => 'this is no PHP',
            'handled.php' => 'return function () { set_exception_handler(function ($e) { echo "sorry: ", $e->getMessage(); }); throw new Exception("x"); };',
            'shutdown.php' => 'return function () { register_shutdown_function(function () { throw new Exception("late"); }); return [1]; };',
            'hello.php' => 'return fn () => ["ok" => true];',
        ]);
        $p = $pool->process();
        $r = $p->call('throw');
        same(['error', 500, 'RuntimeException', 2, false], [$r['kind'], $r['status'], $r['error']['class'], $r['error']['line'], $r['recycle']]);
        contains('luck', $r['error']['message']);
        contains('throw.php', $r['error']['file']);
        same('ParseError', $p->call('parse')['error']['class']);
        $r = $p->call('handled');
        same([500, 'sorry: x'], [$r['status'], $r['body']]);
        same('late', $p->call('shutdown')['error']['message']);
        same('RuntimeException', $p->call('throw')['error']['class'], 'handlers do not stay');
        same('{"ok":true}', $p->call('hello')['body']);
        contains('PHP Fatal error:  Uncaught RuntimeException', $p->errors());
        $pool->close();
    },

    'fatal errors are told before the process ends' => static function (): void {
        $pool = new Pool([
            'memory.php' => 'return function () { echo "partial"; $a = str_repeat("x", 1 << 30); };',
            'grow.php' => 'return function () { $a = []; while (true) { $a[] = str_repeat("x", 1000); } };',
            'redeclare.php' => 'return function () { function once() {} return [1]; };',
            'classes.php' => 'return function () { include __DIR__ . "/_class.inc"; return [1]; };',
            '_class.inc' => 'class Twice {}',
            'limit.php' => 'return function () { set_time_limit(1); while (true); };',
            'page.php' => 'return function () { register_shutdown_function(function () { if (error_get_last()) { echo "a nice page"; } }); str_repeat("x", 1 << 30); };',
            'exits.php' => 'return function () { exit("bye"); };',
        ], [], ['memory_limit' => '32M']);
        foreach (['memory' => 'memory size', 'grow' => 'memory size', 'limit' => 'execution time'] as $function => $message) {
            $p = $pool->process();
            $r = $p->call($function);
            same(['error', 'FatalError', true], [$r['kind'], $r['error']['class'] ?? null, $r['recycle'] ?? null], $function);
            contains($message, $r['error']['message']);
            same('end', $p->frame()['kind']);
        }
        foreach (['redeclare' => 'Cannot redeclare once', 'classes' => 'Cannot declare class Twice'] as $function => $message) {
            $p = $pool->process();
            same('[1]', $p->call($function)['body']);
            contains($message, $p->call($function)['error']['message']);
        }
        $p = $pool->process();
        $r = $p->call('page');
        same(['reply', 500, 'a nice page', true], [$r['kind'], $r['status'], $r['body'], $r['recycle']]);
        $p = $pool->process();
        same('bye', $p->call('exits')['body']);
        $r = $p->call('memory');
        if (PHP_VERSION_ID >= 80235) {
            same(['error', 'FatalError', true], [$r['kind'], $r['error']['class'] ?? null, $r['recycle'] ?? null], 'after an exit');
        } else {
            // Older ones (8.2.31 was seen to) end at once when memory runs out in a Fiber that is being destroyed.
            same('end', $r['kind'], 'after an exit');
        }
        contains('Allowed memory size', $p->errors(true));
        $pool->close();
    },
];
