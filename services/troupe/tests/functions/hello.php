<?php
use Troupe\Request;

return fn (Request $request): array => ['message' => 'hello', 'name' => $request->query('name', 'world')];
