<?php

declare(strict_types=1);

/* Loading, forking, the control channel, the end. */

return [
    'functions by name, broken files named' => static function (): void {
        $pool = new Pool([
            'hello.php' => 'return fn () => 1;',
            'v1/users.php' => 'return fn () => 2;',
            'v1/_hidden.php' => 'return fn () => 3;',
            'src/Thing.php' => 'class Thing {}',
            '.secret.php' => 'return 1;',
            'vendor/autoload.php' => 'spl_autoload_register(function ($c) { if ($c === "Made") { eval("class Made { public \$by = \"autoload\"; }"); } });',
            'made.php' => 'return fn () => new Made;',
            'nothing.php' => '$x = 1;',
            'syntax.php' => 'return function ( {',
            'throws.php' => "\nthrow new LogicException('not today');",
            'wants.php' => 'return fn (int $x) => 1;',
            'text.txt' => 'no function',
        ]);
        same('ready', $pool->ready['event']);
        same(['hello', 'made', 'v1/users'], array_column($pool->ready['functions'], 'name'));
        same([0, 1, 2], array_column($pool->ready['functions'], 'index'));
        $errors = array_column($pool->ready['errors'], null, 'file');
        same(['nothing.php', 'syntax.php', 'throws.php', 'wants.php'], array_map(basename(...), array_keys($errors)));
        contains('returns 1, or nothing, not a function', $errors["$pool->root/nothing.php"]['message']);
        same([3, 'not today'], [$errors["$pool->root/throws.php"]['line'], $errors["$pool->root/throws.php"]['message']]);
        $p = $pool->process();
        same('{"by":"autoload"}', $p->call('made')['body']);
        same('2', $p->call('v1/users')['body']);
        $pool->close();
    },

    'a boot that cannot go on' => static function (): void {
        $pool = new Pool(['vendor/autoload.php' => 'this is no PHP', 'hello.php' => 'return fn () => 1;']);
        same(['fatal', 2], [$pool->ready['event'], $pool->ready['line']]);
        $pool->close();
        $pool = new Pool(['hello.php' => 'exit("never mind");']);
        same('fatal', $pool->ready['event']);
        contains('exit was called', $pool->ready['message']);
        contains('hello.php', $pool->ready['file']);
        $pool->close();
        $pool = new Pool(['a.php' => 'function same_name() {} return fn () => 1;', 'b.php' => 'function same_name() {} return fn () => 1;']);
        same('fatal', $pool->ready['event']);
        contains('Cannot redeclare same_name', $pool->ready['message']);
        contains('b.php', $pool->ready['file']);
        $pool->close();
    },

    'a descriptor left open is an error that names the file' => static function (): void {
        $pool = new Pool([
            'open.php' => '$GLOBALS["kept"] = fopen("/dev/zero", "r"); return fn () => 1;',
            'hello.php' => 'return fn () => 2;',
        ]);
        same(['hello'], array_column($pool->ready['functions'], 'name'));
        contains('/dev/zero', $pool->ready['errors'][0]['message']);
        contains('open.php', $pool->ready['errors'][0]['file']);
        $pool->close();
    },

    'forks draw different random numbers' => static function (): void {
        $pool = new Pool(['random.php' => 'mt_rand(); lcg_value(); return fn () => [mt_rand(), lcg_value(), random_int(0, PHP_INT_MAX), uniqid("", true)];']);
        $drawn = [];
        for ($i = 0; $i < 8; $i++) {
            foreach (json_decode($pool->process()->call('random')['body']) as $at => $value) {
                $drawn[$at][] = (string) $value;
            }
        }
        foreach ($drawn as $at => $values) {
            same(8, count(array_unique($values)), "generator $at");
        }
        $pool->close();
    },

    'each process has its own descriptors, close-on-exec where they are the protocol' => static function (): void {
        $pool = new Pool(['fds.php' => 'return fn () => [readlink("/proc/self/fd/1"), readlink("/proc/self/fd/2"), shell_exec("ls -l /proc/self/fd"), posix_getpgrp() === getmypid()];']);
        $p = $pool->process();
        [$output, $error, $inherited, $leader] = json_decode($p->call('fds')['body']);
        contains("$p->id.stdout", $output);
        contains("$p->id.stderr", $error);
        same(true, $leader);
        foreach (['.in', '.out', 'ctl'] as $name) {
            same(false, str_contains($inherited, $name), "$name is inherited");
        }
        $pool->close();
    },

    'stop, end of input, and a dead php-pool' => static function (): void {
        $pool = new Pool(['pid.php' => 'return function () { return [posix_getpid(), (int) shell_exec("sleep 60 >/dev/null 2>&1 & echo $!")]; };']);
        $a = $pool->process();
        $a->write(3);
        same('end', $a->frame()['kind']);
        same(['id' => 1, 'code' => 0], array_intersect_key($pool->event('exited'), ['id' => 1, 'code' => 1]));
        $b = $pool->process();
        fclose($b->in);
        same(0, $pool->event('exited')['code']);
        $c = $pool->process();
        posix_kill($c->pid, SIGKILL);
        same([null, SIGKILL], [($e = $pool->event('exited'))['code'], $e['signal']]);
        $d = $pool->process();
        [$pid, $child] = json_decode($d->call('pid')['body']);
        same(true, posix_kill($pid, 0) && posix_kill($child, 0));
        $pool->abandon();
        same('end', $d->frame()['kind']);
        for ($i = 0; $i < 200 && posix_kill($child, 0) && !str_contains((string) @file_get_contents("/proc/$child/stat"), ') Z'); $i++) {
            usleep(10_000);
        }
        same(true, $i < 200, 'its child is gone, too');
        $pool->close();
    },

    'without a zygote' => static function (): void {
        $pool = new Pool(['hello.php' => 'return function () { if (isset($_GET["exit"])) { exit("bye"); } fwrite(STDOUT, "out\n"); return ["ok" => 1]; };']);
        Process::prepare("$pool->run/9");
        $child = proc_open(Pool::command(dirname(__DIR__) . '/process.php', [], "$pool->run/boot.json", '9'), [['file', dirname(__DIR__) . '/start.php', 'r'], ['file', "$pool->run/9.out.log", 'w'], ['file', "$pool->run/9.err.log", 'w']], $pipes);
        $p = new Process("$pool->run/9", $pool->index, false);
        same('hello', json_decode($p->ready['body'], true)['functions'][0]['name']);
        same('{"ok":1}', $p->call('hello')['body']);
        same('bye', $p->call('hello', ['QUERY_STRING' => 'exit=1'])['body']);
        $r = $p->call('hello', flags: 4);
        same(['{"ok":1}', true], [$r['body'], $r['recycle']]);
        same('end', $p->frame()['kind']);
        proc_close($child);
        same("out\nout\n", file_get_contents("$pool->run/9.out.log"));
        $pool->close();
    },
];
