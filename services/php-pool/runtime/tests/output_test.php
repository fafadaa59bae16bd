<?php

declare(strict_types=1);

/* Printing while an exception is on its way: PHP then gives up the buffer that replies are gathered in, for good. */

/** An error handler as frameworks set it: `echo []` throws, and PHP prints "Array" all the same. */
const THROWING = 'set_error_handler(fn ($n, $m) => throw new ErrorException($m));';

return [
    'a process that PHP no longer lets hear what is printed says so and ends' => static function (): void {
        $try = static fn (string $then): string => 'return function () { ' . THROWING . ' try { echo []; } catch (ErrorException) {} ' . $then . ' };';
        $functions = [
            'uncaught' => 'return function () { ' . THROWING . ' echo "hello "; echo $_GET["name"] ?? "world"; };',
            'handled' => 'return function () { ' . THROWING . ' set_exception_handler(function ($e) { echo "sorry: ", $e->getMessage(); }); echo $_GET["name"]; };',
            'printed' => $try('echo "page";'),
            'exits' => $try('echo "page"; exit;'),
            'finishes' => $try('echo "page"; fastcgi_finish_request();'),
            'returned' => $try('return "value";'),
            'streamed' => $try('echo "page"; yield "piece"; echo "more";'),
            'callback' => 'return function () { ob_start(fn () => throw new Exception("minify")); echo "page"; };',
            'ended' => 'return function () { ob_start(fn () => throw new Exception("minify")); echo "page"; try { ob_end_flush(); } catch (Exception) {} echo "more"; };',
        ];
        $lost = 'what was printed is lost';
        $expected = [
            'uncaught' => ['error', 'Array to string conversion'],
            'handled' => ['reply', 'sorry: Array to string conversion'],
            'printed' => ['error', $lost],
            'exits' => ['error', $lost],
            'finishes' => ['error', $lost],
            'returned' => ['reply', 'value'],
            'streamed' => ['stream', 'piece'],
            'callback' => ['error', 'minify'],
            'ended' => ['error', $lost],
        ];
        $files = ['hello.php' => 'return function () { echo "hello"; };', 'leave.php' => 'return function () { echo "left"; exit; };'];
        foreach ($functions as $name => $code) {
            $files["$name.php"] = $code;
        }
        $pool = new Pool($files);
        foreach ([false, true] as $surviving) {
            foreach ($expected as $function => [$kind, $says]) {
                $p = $pool->process();
                if ($surviving) {
                    same('left', $p->call('leave')['body']);
                }
                same('hello', $p->call('hello')['body']);
                $r = $p->call($function, ['QUERY_STRING' => 'name[]=1']);
                same([$kind, true], [$r['kind'], $r['recycle']], $function);
                contains($says, $r['error']['message'] ?? $r['body'], $function);
                same($kind === 'stream' ? 'error' : null, $r['last'] ?? null, "$function: a stream with a hole is a broken one");
                same('end', $p->frame()['kind'], $function);
            }
        }
        $pool->close();
    },

    'code that has PHP give up output as it is loaded is not served' => static function (): void {
        $pool = new Pool(['vendor/autoload.php' => THROWING . ' try { echo []; } catch (ErrorException) {} restore_error_handler();', 'x.php' => 'return fn () => 1;']);
        same('fatal', $pool->ready['event']);
        contains('what was printed is lost', $pool->ready['message']);
        $pool->close();
    },
];
