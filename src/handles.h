/* In the test build, handles of HDF5 are counted where they are opened and closed, since HDF5 itself does not tell of property
 * lists and dataspaces. Included behind hdf5.h. */
#ifndef SGDMAP_HANDLES_H
#define SGDMAP_HANDLES_H

#ifdef SGDMAP_FAULTS

static int64_t handles_open;

static hid_t handles_count(hid_t id)
{
    handles_open += id >= 0;
    return id;
}

static herr_t handles_uncount(herr_t status)
{
    handles_open -= status >= 0;
    return status;
}

#define H5Acreate2(...) handles_count((H5Acreate2)(__VA_ARGS__))
#define H5Aget_space(...) handles_count((H5Aget_space)(__VA_ARGS__))
#define H5Aget_type(...) handles_count((H5Aget_type)(__VA_ARGS__))
#define H5Aopen(...) handles_count((H5Aopen)(__VA_ARGS__))
#define H5Dcreate2(...) handles_count((H5Dcreate2)(__VA_ARGS__))
#define H5Dget_create_plist(...) handles_count((H5Dget_create_plist)(__VA_ARGS__))
#define H5Dget_space(...) handles_count((H5Dget_space)(__VA_ARGS__))
#define H5Dget_type(...) handles_count((H5Dget_type)(__VA_ARGS__))
#define H5Dopen2(...) handles_count((H5Dopen2)(__VA_ARGS__))
#define H5Fcreate(...) handles_count((H5Fcreate)(__VA_ARGS__))
#define H5Fget_create_plist(...) handles_count((H5Fget_create_plist)(__VA_ARGS__))
#define H5Fopen(...) handles_count((H5Fopen)(__VA_ARGS__))
#define H5Gcreate2(...) handles_count((H5Gcreate2)(__VA_ARGS__))
#define H5Gopen2(...) handles_count((H5Gopen2)(__VA_ARGS__))
#define H5Iget_file_id(...) handles_count((H5Iget_file_id)(__VA_ARGS__))
#define H5Pcreate(...) handles_count((H5Pcreate)(__VA_ARGS__))
#define H5Screate(...) handles_count((H5Screate)(__VA_ARGS__))
#define H5Screate_simple(...) handles_count((H5Screate_simple)(__VA_ARGS__))
#define H5Tcopy(...) handles_count((H5Tcopy)(__VA_ARGS__))

#define H5Aclose(id) handles_uncount((H5Aclose)(id))
#define H5Dclose(id) handles_uncount((H5Dclose)(id))
#define H5Fclose(id) handles_uncount((H5Fclose)(id))
#define H5Gclose(id) handles_uncount((H5Gclose)(id))
#define H5Pclose(id) handles_uncount((H5Pclose)(id))
#define H5Sclose(id) handles_uncount((H5Sclose)(id))
#define H5Tclose(id) handles_uncount((H5Tclose)(id))

/* A second reference, which takes a second close. */
#define H5Iinc_ref(id) (handles_open++, (H5Iinc_ref)(id))

#else
enum { handles_open = 0 };
#endif

#endif
