%% All definitions of the broker, as JSON in base64. What `rabbitmqctl export_definitions` prints is not enough: it makes
%% lists of lists out of nested tables, which an import takes for such.
Plain = fun
    Self([{Key, _} | _] = Table) when is_binary(Key); is_atom(Key) ->
        maps:from_list([{Name, Self(Value)} || {Name, Value} <- Table]);
    Self(List) when is_list(List) -> [Self(Item) || Item <- List];
    Self(Map) when is_map(Map) -> maps:map(fun(_, Value) -> Self(Value) end, Map);
    Self(Other) -> Other
end,
base64:encode(iolist_to_binary(rabbit_json:encode(Plain(rabbit_definitions:all_definitions())))).
