%% How many messages and consumers the queues have that are named, and those in the virtual hosts that are named; -1
%% where that cannot be told.
Count = fun(Queue, What) ->
    case catch rabbit_amqqueue:info(Queue, [What]) of
        [{What, Number}] when is_integer(Number) -> Number;
        _ -> -1
    end
end,
Tell = fun(Queue) ->
    {resource, Host, queue, Name} = amqqueue:get_name(Queue),
    [Host, Name, Count(Queue, messages), Count(Queue, consumers)]
end,
Named = [Found || [Host, Name] <- maps:get(<<"queues">>, Given),
    {ok, Found} <- [rabbit_amqqueue:lookup(rabbit_misc:r(Host, queue, Name))]],
Inside = lists:append([rabbit_amqqueue:list(Host) || Host <- maps:get(<<"vhosts">>, Given)]),
base64:encode(iolist_to_binary(rabbit_json:encode([Tell(Queue) || Queue <- Named ++ Inside]))).
