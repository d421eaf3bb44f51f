<?php
// A backend that decides about clients, with the standard library of PHP.

function connect(array $request, ?string $session): array
{
    if ($session === null) {
        return ['error' => ['code' => 1001, 'message' => 'log in first']];
    }
    return ['result' => ['user' => $session, 'channels' => ['news']]];
}

function subscribe(array $request): array
{
    if (str_starts_with($request['channel'], 'room')) {
        return ['result' => new stdClass()];
    }
    return ['error' => ['code' => 103, 'message' => 'permission denied']];
}

function publish(array $request): array
{
    $data = ['from' => $request['user'], 'text' => $request['data']['text']];
    return ['result' => ['data' => $data]];
}

function rpc(array $request): array
{
    if ($request['method'] === 'echo') {
        return ['result' => ['data' => $request['data']]];
    }
    return ['error' => ['code' => 104, 'message' => 'method not found']];
}

$request = json_decode(file_get_contents('php://input'), true);
$answer = match ($_SERVER['REQUEST_URI']) {
    '/connect' => connect($request, $_COOKIE['session'] ?? null),
    '/subscribe' => subscribe($request),
    '/publish' => publish($request),
    '/rpc' => rpc($request),
};
header('Content-Type: application/json');
echo json_encode($answer);
