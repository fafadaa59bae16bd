<?php

declare(strict_types=1);

return [
    'hello' => static function (): void {
        $pool = new Pool(['hello.php' => 'use Troupe\Request; return function (Request $r): array { return ["message" => "hello", "name" => $r->query("name", "world")]; };']);
        same('ready', $pool->ready['event'], $pool->errors());
        $p = $pool->process();
        $r = $p->call('hello', ['QUERY_STRING' => 'name=Ann']);
        same(['reply', 200, '{"message":"hello","name":"Ann"}'], [$r['kind'], $r['status'], $r['body']]);
        contains('Content-Type: application/json', $r['head']);
        same('{"message":"hello","name":"world"}', $p->call('hello')['body']);
        $pool->close();
    },
];
