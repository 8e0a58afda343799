// libuv, as its guide has it, but for a buffer that all connections read into, and for a write that
// is tried at once.

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { FRAME_SIZE_MAX = 64 * 1024, INPUT_SIZE = 64 * 1024 };

struct connection {
    uv_tcp_t tcp;
    // The beginning of a frame whose end has not come yet.
    char *partial;
    size_t partial_size;
};

// Replies that the socket did not take at once.
struct unsent {
    uv_write_t request;
    char bytes[];
};

static char input[INPUT_SIZE];
static char replies[INPUT_SIZE + FRAME_SIZE_MAX + 1];

static void on_close(uv_handle_t *handle) {
    struct connection *connection = handle->data;
    free(connection->partial);
    free(connection);
}

static void end(struct connection *connection) {
    uv_handle_t *handle = (uv_handle_t *)&connection->tcp;
    if (!uv_is_closing(handle)) uv_close(handle, on_close);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle, (void)suggested;
    *buffer = uv_buf_init(input, sizeof input);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);

static void on_written(uv_write_t *request, int status) {
    struct connection *connection = request->handle->data;
    free(request);
    if (status < 0) {
        end(connection);
    } else {
        uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read);
    }
}

static void reply(struct connection *connection, size_t size) {
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    uv_buf_t buffer = uv_buf_init(replies, size);
    int sent = uv_try_write(stream, &buffer, 1);
    if (sent == UV_EAGAIN) sent = 0;
    if (sent < 0) {
        end(connection);
    } else if ((size_t)sent < size) {
        // No more is read until these are out.
        uv_read_stop(stream);
        struct unsent *unsent = malloc(sizeof *unsent + size - sent);
        memcpy(unsent->bytes, replies + sent, size - sent);
        buffer = uv_buf_init(unsent->bytes, size - sent);
        if (uv_write(&unsent->request, stream, &buffer, 1, on_written) < 0) {
            free(unsent);
            end(connection);
        }
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
    (void)buffer;
    struct connection *connection = stream->data;
    if (n < 0) {
        end(connection);
        return;
    }
    size_t size = 0;
    const char *frame = input, *stop = input + n;
    for (const char *found; (found = memchr(frame, '\n', stop - frame)); frame = found + 1) {
        size_t frame_size = found + 1 - frame;
        if (connection->partial_size + frame_size > FRAME_SIZE_MAX + 1) {
            end(connection);
            return;
        }
        if (connection->partial_size) {
            memcpy(replies, connection->partial, connection->partial_size);
            size = connection->partial_size;
            free(connection->partial);
            connection->partial = NULL;
            connection->partial_size = 0;
        }
        memcpy(replies + size, frame, frame_size);
        size += frame_size;
    }
    size_t rest = stop - frame;
    if (connection->partial_size + rest > FRAME_SIZE_MAX) {
        end(connection);
        return;
    }
    if (rest) {
        connection->partial = realloc(connection->partial, connection->partial_size + rest);
        memcpy(connection->partial + connection->partial_size, frame, rest);
        connection->partial_size += rest;
    }
    if (size) reply(connection, size);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0) return;
    struct connection *connection = calloc(1, sizeof *connection);
    uv_tcp_init(listener->loop, &connection->tcp);
    connection->tcp.data = connection;
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    if (uv_accept(listener, stream) < 0 || uv_read_start(stream, on_alloc, on_read) < 0) {
        end(connection);
    }
}

int serve_libuv(int fd) {
    signal(SIGPIPE, SIG_IGN);
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    if (uv_tcp_init(loop, &listener) < 0 || uv_tcp_open(&listener, fd) < 0) return 1;
    if (uv_listen((uv_stream_t *)&listener, 4096, on_connection) < 0) return 1;
    return uv_run(loop, UV_RUN_DEFAULT);
}
