<?php

declare(strict_types=1);

/* Code of a call that runs when its reply is out: in a forked child, or as what it leaves is taken away. Nobody hears of it. */

const PLAIN = 'return function () { echo "plain", json_encode([$_SESSION ?? null, $_GET]); };';

return [
    'a forked child answers nothing, before and after the first exit' => static function (): void {
        $fork = static fn (string $end): string => 'return function () { if (pcntl_fork() === 0) { usleep(20000); echo "child"; ' . $end . ' } return "parent"; };';
        $pool = new Pool([
            'plain.php' => PLAIN,
            'leave.php' => 'return function () { echo "left"; exit; };',
            'exits.php' => $fork('exit;'),
            'throws.php' => $fork('throw new Exception("child");'),
            'returns.php' => $fork('return "child";'),
            'breaks.php' => $fork('nothing_of_that_name();'),
            'flushes.php' => $fork('flush(); exit;'),
            'floods.php' => $fork('echo str_repeat("c", 300000); exit;'),
            'completes.php' => $fork('fastcgi_finish_request(); exit;'),
            'streams.php' => 'return function () { if (pcntl_fork() === 0) { return (function () { yield "child"; })(); } return "parent"; };',
        ]);
        $p = $pool->process();
        for ($round = 0; $round < 2; $round++) {
            foreach (['exits', 'throws', 'returns', 'breaks', 'flushes', 'floods', 'completes', 'streams'] as $function) {
                same('parent', $p->call($function)['body'], $function);
                // Long enough for the child to say something.
                usleep(100_000);
                for ($i = 0; $i < 3; $i++) {
                    same('plain[null,{"i":"' . $i . '"}]', $p->call('plain', ['QUERY_STRING' => "i=$i"])['body'], $function);
                }
            }
            same('left', $p->call('leave')['body']);
        }
        $pool->close();
    },

    'what destructors do after the reply is nobody\'s' => static function (): void {
        $last = static fn (string $left, string $act = ''): string => 'if (!class_exists("Last")) { class Last { public function __construct(private $act) {} public function __destruct() { ($this->act)(); } } }
            return function () { $o = new Last(function () { echo "of alice"; header("X-Of: alice"); setcookie("of", "alice"); register_shutdown_function(fn () => print "of alice"); ' . $act . ' }); ' . $left . ' return "done"; };';
        $functions = [
            'global' => $last('$GLOBALS["o"] = $o;'),
            'query' => $last('$_GET["o"] = $o;', '$GLOBALS["of"] = "alice";'),
            'handler' => $last('set_error_handler(function () use ($o) {});'),
            'callback' => $last('header_register_callback(function () use ($o) {}); throw new Exception("no");'),
            'buffer' => $last('$GLOBALS["o"] = $o;', 'ob_start(); echo "held";'),
            'session' => $last('$GLOBALS["o"] = $o;', 'session_id("aliceaaaaaaaaaaaaaaaaaaa"); session_start(); $_SESSION["of"] = "alice";'),
            'ini' => $last('set_error_handler(function () use ($o) {});', 'ini_set("precision", "3");'),
            'throwing' => $last('$GLOBALS["o"] = $o;', 'throw new Exception("late");'),
            'leaving' => $last('$GLOBALS["o"] = $o;', 'exit;'),
        ];
        $files = ['plain.php' => 'return function () { session_start(); echo json_encode([$_SESSION, $GLOBALS["of"] ?? ini_get("precision")]); };', 'leave.php' => 'return function () { exit; };'];
        foreach ($functions as $name => $code) {
            $files["$name.php"] = $code;
        }
        $pool = new Pool($files, [], ['session.save_path' => sys_get_temp_dir()]);
        foreach ([false, true] as $surviving) {
            foreach (array_keys($functions) as $function) {
                $p = $pool->process();
                if ($surviving) {
                    $p->call('leave');
                }
                contains($function === 'callback' ? 'no' : 'done', $p->call($function)['body'], $function);
                if (in_array($function, ['throwing', 'leaving'], true)) {
                    same('end', $p->frame()['kind'], "$function: the process is not for others");
                    continue;
                }
                $r = $p->call('plain', ['HTTP_COOKIE' => 'PHPSESSID=bobbobbobbobbobbobbobbob']);
                same([200, '[[],"14"]'], [$r['status'], $r['body']], $function);
                same([], array_values(array_filter($r['head'], static fn (string $line): bool => str_contains($line, 'alice'))), $function);
            }
        }
        $pool->close();
    },

    'superglobals that were made one are two again' => static function (): void {
        $pool = new Pool([
            'bind.php' => 'return function () { $_POST = &$_GET; return 1; };',
            'both.php' => 'return fn () => [$_GET, $_POST];',
        ]);
        $p = $pool->process();
        $p->call('bind');
        $r = $p->call('both', ['REQUEST_METHOD' => 'POST', 'QUERY_STRING' => 'a=1', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded'], 'b=2');
        same('[{"a":"1"},{"b":"2"}]', $r['body']);
        $pool->close();
    },

    'a header callback that fails as output leaves costs no later reply' => static function (): void {
        $big = 'header_register_callback(function () { %s }); for ($i = 0; $i < 60; $i++) { echo str_repeat("y", 8192); }';
        $pool = new Pool([
            'plain.php' => PLAIN,
            'throws.php' => 'return function () { ' . sprintf($big, 'throw new Exception("cb");') . ' };',
            'exits.php' => 'return function () { ' . sprintf($big, 'exit;') . ' };',
        ]);
        $p = $pool->process();
        same(['error', 'cb'], [($r = $p->call('throws'))['kind'], $r['error']['message']]);
        same('plain[null,[]]', $p->call('plain')['body'], 'the process goes on');
        $r = $p->call('exits');
        same(['error', true], [$r['kind'], $r['recycle']], 'what was printed is lost');
        same('end', $p->frame()['kind']);
        $pool->close();
    },

    'a page of an error that cannot be sent is an error all the same' => static function (): void {
        $pool = new Pool([
            'page.php' => 'return function () {
                header_register_callback(fn () => throw new Exception("cb"));
                register_shutdown_function(fn () => print str_repeat("p", 300000));
                trigger_error("broken", E_USER_ERROR);
            };',
            'plain.php' => PLAIN,
        ]);
        $p = $pool->process();
        same(['error', 'broken'], [($r = $p->call('page'))['kind'], $r['error']['message']]);
        same([true, 'end'], [$r['recycle'], $p->frame()['kind']]);
        $pool->close();
    },

    'a session handler of boot code is an error, not forgotten' => static function (): void {
        $pool = new Pool([
            'before.php' => 'session_set_save_handler(new SessionHandler); throw new Exception("no");',
            'bad.php' => 'class Own extends SessionHandler {} session_set_save_handler(new Own); return fn () => 1;',
            'good.php' => 'return function () { session_start(); return ["n" => $_SESSION["n"] = ($_SESSION["n"] ?? 0) + 1]; };',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        same(['good'], array_column($pool->ready['functions'], 'name'));
        $errors = array_column($pool->ready['errors'], 'message', 'function');
        same('no', $errors['before']);
        contains('sets a session handler', $errors['bad']);
        $p = $pool->process();
        $id = bin2hex(random_bytes(12));
        same(['{"n":1}', '{"n":2}'], [$p->call('good', ['HTTP_COOKIE' => "PHPSESSID=$id"])['body'], $p->call('good', ['HTTP_COOKIE' => "PHPSESSID=$id"])['body']]);
        $pool->close();
    },
];
