%% Removes what is named. What cannot be removed, and what is gone already, is passed over: the comparison that follows
%% tells. No queue goes that holds a message or is in use.
By = <<"skep">>,
Again = fun(Table) -> rabbit_json:decode(iolist_to_binary(rabbit_json:encode(rabbit_misc:amqp_table(Table)))) end,
Remove = fun
    ([<<"bindings">>, Host, Source, Kind, Destination, Key, Arguments]) ->
        From = rabbit_misc:r(Host, exchange, Source),
        To = rabbit_misc:r(Host, case Kind of <<"queue">> -> queue; _ -> exchange end, Destination),
        [rabbit_binding:remove(Binding, By) ||
            {binding, _, Found, _, Table} = Binding <- rabbit_binding:list_for_source_and_destination(From, To),
            Found =:= Key, maps:to_list(Arguments) =:= [] andalso Table =:= [] orelse Again(Table) =:= Arguments];
    ([<<"queues">>, Host, Name]) ->
        {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(Host, queue, Name)),
        rabbit_amqqueue:delete(Queue, true, true, By);
    ([<<"exchanges">>, Host, Name]) ->
        Exchange = rabbit_misc:r(Host, exchange, Name),
        case erlang:function_exported(rabbit_exchange, ensure_deleted, 3) of
            true -> rabbit_exchange:ensure_deleted(Exchange, false, By);
            false -> rabbit_exchange:delete(Exchange, false, By)
        end;
    ([<<"policies">>, Host, Name]) -> rabbit_policy:delete(Host, Name, By);
    ([<<"parameters">>, Host, <<"operator_policy">>, Name]) -> rabbit_policy:delete_op(Host, Name, By);
    ([<<"parameters">>, Host, Component, Name]) -> rabbit_runtime_parameters:clear(Host, Component, Name, By);
    ([<<"global_parameters">>, Name]) -> rabbit_runtime_parameters:clear_global(binary_to_atom(Name, utf8), By);
    ([<<"topic_permissions">>, Host, User, Exchange]) ->
        rabbit_auth_backend_internal:clear_topic_permissions(User, Host, Exchange, By);
    ([<<"permissions">>, Host, User]) -> rabbit_auth_backend_internal:clear_permissions(User, Host, By);
    ([<<"users">>, Name]) -> rabbit_auth_backend_internal:delete_user(Name, By);
    ([<<"vhosts">>, Name]) -> rabbit_vhost:delete(Name, By)
end,
lists:foreach(fun(Named) -> catch Remove(Named) end, Given),
base64:encode(<<"[]">>).
