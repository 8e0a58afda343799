// libevent with a bufferevent for each connection. Up to version 2.1 it reads at most 4 KiB at a
// time, whatever it is told, and asks before each read how much there is.

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { FRAME_SIZE_MAX = 64 * 1024, READ_SIZE_MAX = 64 * 1024, PIECES = 256 };

// Replies on their way out, of whichever connection is being served.
static struct evbuffer *replies;

// The bytes up to the end of the last frame that is complete, or -1 if one is too long.
static ssize_t complete(struct evbuffer *input) {
    struct evbuffer_iovec pieces[PIECES];
    int count = evbuffer_peek(input, -1, NULL, pieces, PIECES);
    // More than the longest frame takes; the others are seen at the next call.
    if (count > PIECES) count = PIECES;
    size_t before = 0, frame_start = 0, end = 0;
    for (int i = 0; i < count; i++) {
        const char *base = pieces[i].iov_base, *at = base, *stop = base + pieces[i].iov_len;
        for (const char *found; (found = memchr(at, '\n', stop - at)); at = found + 1) {
            end = before + (found - base) + 1;
            if (end - frame_start > FRAME_SIZE_MAX + 1) return -1;
            frame_start = end;
        }
        before += pieces[i].iov_len;
    }
    return before - frame_start > FRAME_SIZE_MAX ? -1 : (ssize_t)end;
}

static void on_read(struct bufferevent *bev, void *arg) {
    (void)arg;
    struct evbuffer *input = bufferevent_get_input(bev);
    for (ssize_t size; (size = complete(input)) != 0;) {
        if (size < 0) {
            bufferevent_free(bev);
            return;
        }
        // Moved, not copied, but for the last piece. Written at once: the bufferevent itself would
        // first have epoll tell it that it can, and then no longer tell it, at two calls more.
        evbuffer_remove_buffer(input, replies, size);
        evbuffer_write(replies, bufferevent_getfd(bev));
        if (evbuffer_get_length(replies) != 0) {
            // No more is read until these are out, or the connection has failed.
            bufferevent_disable(bev, EV_READ);
            bufferevent_write_buffer(bev, replies);
            return;
        }
    }
}

static void on_written(struct bufferevent *bev, void *arg) {
    bufferevent_enable(bev, EV_READ);
    on_read(bev, arg);
}

// Everything before an EOF has been answered: none is reported while replies are unsent.
static void on_event(struct bufferevent *bev, short what, void *arg) {
    (void)arg;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) bufferevent_free(bev);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from,
                      int from_size, void *arg) {
    (void)from, (void)from_size, (void)arg;
    struct event_base *base = evconnlistener_get_base(listener);
    struct bufferevent *bev = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_set_max_single_read(bev, READ_SIZE_MAX);
    bufferevent_setcb(bev, on_read, on_written, on_event, NULL);
    bufferevent_enable(bev, EV_READ);
}

int serve_libevent(int listener) {
    signal(SIGPIPE, SIG_IGN);
    struct event_config *config = event_config_new();
    // Fewer epoll_ctl, and safe as no descriptor here is a duplicate.
    event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(config);
    replies = evbuffer_new();
    if (!base || !replies) return 1;
    // A backlog of 0: it listens already. Its flags make what is accepted not block.
    if (!evconnlistener_new(base, on_accept, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, listener)) return 1;
    return event_base_dispatch(base);
}
